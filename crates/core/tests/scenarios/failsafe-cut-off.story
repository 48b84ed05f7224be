# Only the primary has lost the store. Its key goes, and the others, who reach both the store and the primary, have promised
# to wait: they follow it, and do not stand. When it dies after all, they elect another within a lease.
> running a b c
> set failsafe_mode true
> tick 20s
    0.011  a      leads; writes down who has to agree when the store is away -> write failsafe [FS-1 DCS-10]
    0.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> unplug a
> tick 120s
   25.000  a      the store does not answer (no answer), but the leader lease has not run out [TIM-5 DCSF-6]
   25.011  a      the store does not confirm the leader lease: asks all other members whether they wait for this primary -> ask b and c to wait [FS-4 BEY-9]
   25.016  a      the store does not confirm the leader lease; all other members (2) have agreed to wait for this primary -> go on with the consent of all others [DCSF-4 FS-4 FS-12]
   45.011  store  the leader key is gone
   45.023  b      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
   45.024  c      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
> expect a writable
> expect b replica of a
> expect c replica of a
> expect leader nobody
> kill agent b
> tick 2s
> start agent b
> tick 20s
  142.012  b      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
  142.016  a      the store does not confirm the leader lease, and not all other members agree to wait: b (502) [FS-4 DCSF-5]
  142.521  a      the store does not confirm the leader lease; all other members (2) have agreed to wait for this primary -> go on with the consent of all others [DCSF-4 FS-4 FS-12]
> expect a writable
> kill node a
> tick 10s
> expect nobody primary
> wait 35s until b primary
  190.516  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
  190.516  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
  192.516  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
  192.516  store  the leader key is b's
  192.516  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
  192.516  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  192.516  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
  192.529  c      follows b from now on -> follow b by a reload [FOL-10]
  192.529  c      follows the leader b [OWN-7 FOL-12]
  192.726  b      PostgreSQL is primary on timeline 2
