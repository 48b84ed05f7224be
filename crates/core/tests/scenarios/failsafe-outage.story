# The store is away for ten minutes. Every member is there, so the primary goes on; afterwards nothing has changed.
> running a b c
> set failsafe_mode true
> tick 20s
    0.011  a      leads; writes down who has to agree when the store is away -> write failsafe [FS-1 DCS-10]
    0.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> store down
> tick 30s
   25.000  a      the store does not answer (no answer), but the leader lease has not run out [TIM-5 DCSF-6]
   25.000  b      the store does not answer (no answer); a replica keeps running [DCSF-3]
   25.000  c      the store does not answer (no answer); a replica keeps running [DCSF-3]
   25.011  a      the store does not confirm the leader lease: asks all other members whether they wait for this primary -> ask b and c to wait [FS-4 BEY-9]
   25.016  a      the store does not confirm the leader lease; all other members (2) have agreed to wait for this primary -> go on with the consent of all others [DCSF-4 FS-4 FS-12]
> expect a primary
> tick 570s
> expect a primary
> expect b replica of a
> expect c replica of a
> store up
> tick 30s
  620.000  store  the leader key is gone
  620.011  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
  620.012  b      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
  620.013  c      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
  620.016  a      PostgreSQL is primary, no other member is, and nobody holds the leader key: takes it -> acquire the leader key [HLT-5 QRK-2]
  620.016  store  the leader key is a's
  620.016  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
  620.024  b      follows the leader a [OWN-7 FOL-12]
  620.026  c      follows the leader a [OWN-7 FOL-12]
> expect a primary
> expect a timeline 1
> expect leader a
