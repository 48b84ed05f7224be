# Replicas that are equally far: the one with the higher failover_priority wins (RACE-7, IN-T2). The tag nofailover keeps
# a member from standing at all (HLT-7, INV-S24), however far it is.

> running a b c
> tag c failover_priority 2
> kill node a
> wait 40s until c primary
   27.011  store  the leader key is gone
   27.023  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   27.024  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   29.023  b      c is as far and has a higher failover_priority [RACE-7]
   29.024  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   29.024  store  the leader key is c's
   29.024  c      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   29.024  c      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   29.036  b      follows c from now on -> follow c by a reload [FOL-10]
   29.036  b      follows the leader c [OWN-7 FOL-12]
   29.234  c      PostgreSQL is primary on timeline 2
> wait 15s until b replica of c
> start node a
> wait 60s until a replica of c
   29.234  c      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   29.245  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   29.246  b      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
   29.247  c      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   29.247  c      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   29.256  a      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   29.259  b      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   29.296  b      follows the leader c [OWN-7 FOL-12]
   30.245  a      PostgreSQL has recovered in single-user mode
   30.245  a      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
   30.295  a      its history has left that of c: rewinds -> rewind from c [RWD-5 RWD-9]
   30.306  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   30.307  b      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
   30.319  b      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   30.357  b      follows the leader c [OWN-7 FOL-12]
   32.345  a      has rewound from c
   32.345  a      starts PostgreSQL as a replica of c -> start as standby of c [REC-11 NTF-4]
   32.356  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   32.395  a      follows the leader c [OWN-7 FOL-12]
   32.795  a      PostgreSQL accepts connections as standby
   32.795  a      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
   32.806  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   32.845  a      follows the leader c [OWN-7 FOL-12]
> tag a nofailover
> tag b nofailover
> tick 15s
> kill node c
> tick 90s
   77.024  store  the leader key is gone
   77.035  a      nobody holds the leader key, but this member is tagged nofailover [HLT-7 INV-S24]
   77.036  b      nobody holds the leader key, but this member is tagged nofailover [HLT-7 INV-S24]
> expect nobody primary
> expect leader nobody
> start node c
> wait 60s until c primary
  138.013  c      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
  138.026  c      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  139.013  c      PostgreSQL has recovered in single-user mode
  139.013  c      starts PostgreSQL as a replica; there is no leader yet -> start as standby of nobody [REC-11 NTF-4]
  139.026  c      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  139.063  c      nobody holds the leader key, but PostgreSQL is still starting [HLT-3]
  139.463  c      PostgreSQL accepts connections as standby
  139.463  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
  139.468  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
  139.468  store  the leader key is c's
  139.468  c      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
  139.468  c      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  139.479  a      follows the leader c [OWN-7 FOL-12]
  139.480  b      follows the leader c [OWN-7 FOL-12]
  139.678  c      PostgreSQL is primary on timeline 3
