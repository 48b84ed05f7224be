# With primary_race_backoff, replicas wait while a silent primary still sends WAL, and for at least one tick (UNL-1, WAK-4,
# IN-C8). A leader in the picture ends the waiting (CYC-3).

> running a b c
> set primary_race_backoff 20
> tick 15s
> delete leader
   15.000  store  the leader key is gone
> tick 300ms
   15.011  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
   15.012  b      nobody holds the leader key, but WAL still arrives: waits before it stands [UNL-1]
   15.013  c      nobody holds the leader key, but WAL still arrives: waits before it stands [UNL-1]
   15.016  a      PostgreSQL is primary, no other member is, and nobody holds the leader key: takes it -> acquire the leader key [HLT-5 QRK-2]
   15.016  store  the leader key is a's
   15.016  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   15.028  b      follows the leader a [OWN-7 FOL-12]
   15.029  c      follows the leader a [OWN-7 FOL-12]
> expect leader a
> kill agent a
> wait 60s until b primary
   42.986  a      fencer: the deadline has passed, kills PostgreSQL
   43.036  a      PostgreSQL is gone
   45.016  store  the leader key is gone
   45.028  b      nobody holds the leader key, but WAL still arrives: waits before it stands [UNL-1]
   45.029  c      nobody holds the leader key, but WAL still arrives: waits before it stands [UNL-1]
   55.028  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   55.029  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   55.033  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   55.033  store  the leader key is b's
   55.033  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   55.033  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   55.034  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   55.046  c      follows b from now on -> follow b by a reload [FOL-10]
   55.046  c      follows the leader b [OWN-7 FOL-12]
   55.243  b      PostgreSQL is primary on timeline 2
> wait 10s until c replica of b
