# The store is away, and so is one of the others: it might reach a store that the primary does not. So the primary stops in
# time, and goes on when the store is back.
> running a b c
> set failsafe_mode true
> tick 20s
    0.011  a      leads; writes down who has to agree when the store is away -> write failsafe [FS-1 DCS-10]
    0.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> store down
> tick 40s
   25.000  a      the store does not answer (no answer), but the leader lease has not run out [TIM-5 DCSF-6]
   25.000  b      the store does not answer (no answer); a replica keeps running [DCSF-3]
   25.000  c      the store does not answer (no answer); a replica keeps running [DCSF-3]
   25.011  a      the store does not confirm the leader lease: asks all other members whether they wait for this primary -> ask b and c to wait [FS-4 BEY-9]
   25.016  a      the store does not confirm the leader lease; all other members (2) have agreed to wait for this primary -> go on with the consent of all others [DCSF-4 FS-4 FS-12]
> expect a primary
> partition c
> tick 40s
   63.011  a      the store does not confirm the leader lease, and not all other members agree to wait: c (timed out) [FS-4 DCSF-5]
   82.231  a      the store does not answer (no answer) and the leader lease is running out -> stop in order, then start read-only [DCSF-5 TIM-4 QRK-1]
   82.231  a      PostgreSQL has stopped
   82.231  a      the store does not answer (no answer); a replica keeps running [DCSF-3]
   82.631  a      PostgreSQL accepts connections as standby
> expect nobody primary
> heal c
> store up
> wait 60s until a primary
  100.000  store  the leader key is gone
  100.011  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
  100.012  b      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
  100.013  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
  100.016  a      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
  100.016  store  the leader key is a's
  100.016  a      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
  100.016  a      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  100.018  c      a is ahead (0/3074000, this member has 0/305D000) [RACE-6 QRK-4]
  100.018  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
  100.023  c      a is ahead (0/3074000, this member has 0/305D000) [RACE-6 QRK-4]
  100.024  b      follows the leader a [OWN-7 FOL-12]
  100.029  c      follows the leader a [OWN-7 FOL-12]
  100.226  a      PostgreSQL is primary on timeline 2
> tick 30s
  100.226  a      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
  100.237  a      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
  100.237  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
  106.423  b      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
  106.424  c      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
  106.435  b      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  106.436  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  106.473  b      follows the leader a [OWN-7 FOL-12]
  106.474  c      follows the leader a [OWN-7 FOL-12]
> expect b replica of a
