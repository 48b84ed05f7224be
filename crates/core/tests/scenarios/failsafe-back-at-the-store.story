# The primary had lost the store, and its key was gone meanwhile. It takes the key again, and never stops.
> running a b c
> set failsafe_mode true
> tick 20s
    0.011  a      leads; writes down who has to agree when the store is away -> write failsafe [FS-1 DCS-10]
    0.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> unplug a
> tick 60s
   25.000  a      the store does not answer (no answer), but the leader lease has not run out [TIM-5 DCSF-6]
   25.011  a      the store does not confirm the leader lease: asks all other members whether they wait for this primary -> ask b and c to wait [FS-4 BEY-9]
   25.016  a      the store does not confirm the leader lease; all other members (2) have agreed to wait for this primary -> go on with the consent of all others [DCSF-4 FS-4 FS-12]
   45.011  store  the leader key is gone
   45.023  b      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
   45.024  c      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
> expect leader nobody
> plug a
> tick 20s
   80.011  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
   80.016  a      PostgreSQL is primary, no other member is, and nobody holds the leader key: takes it -> acquire the leader key [HLT-5 QRK-2]
   80.016  store  the leader key is a's
   80.016  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   80.028  b      follows the leader a [OWN-7 FOL-12]
   80.029  c      follows the leader a [OWN-7 FOL-12]
> expect a primary
> expect a timeline 1
> expect leader a
> switchover a b
> wait 60s until b primary
  100.011  a      asks the other members whether one of them could take over -> ask b [FP-3]
  100.016  a      a switchover to b was requested and it can take over -> stop in order, then release the leader key [MAN-L7 DEM-3]
  100.027  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  100.316  a      PostgreSQL has stopped
  100.316  store  the leader key is gone
  100.316  a      PostgreSQL is down and waits a moment for a leader to follow [REC-11 DEM-11]
  100.328  b      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
  100.329  c      nobody holds the leader key, but this member has promised a to wait for it [FS-7 CYC-2 INV-S15]
  103.316  a      starts PostgreSQL as a replica; there is no leader yet -> start as standby of nobody [REC-11 NTF-4]
  103.327  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  103.366  a      nobody holds the leader key, but PostgreSQL is still starting [HLT-3]
  103.766  a      PostgreSQL accepts connections as standby
  103.766  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
  103.771  a      leaves the leadership to the requested candidate b [MAN-N2 MAN-N4]
  103.782  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
  103.787  a      leaves the leadership to the requested candidate b [MAN-N2 MAN-N4]
  105.016  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
  105.021  a      leaves the leadership to the requested candidate b [MAN-N2 MAN-N4]
  109.011  b      is the requested candidate and nobody holds the leader key: takes it -> acquire the leader key, clear the request [MAN-N1]
  109.011  store  the leader key is b's
  109.011  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
  109.011  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  109.011  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
  109.016  c      leaves the leadership to the requested candidate b [MAN-N2 MAN-N4]
  109.022  a      follows b from now on -> follow b by a reload [FOL-10]
  109.022  a      follows the leader b [OWN-7 FOL-12]
  109.024  c      follows b from now on -> follow b by a reload [FOL-10]
  109.024  c      follows the leader b [OWN-7 FOL-12]
  109.221  b      PostgreSQL is primary on timeline 2
