# The agent of the primary is killed and does not come back. The fencer kills PostgreSQL before the lease ends.
# (BEY-2, REC-4, MEM-5)

> running a b c
> kill agent a
> wait 30s until a down
   24.981  a      fencer: the deadline has passed, kills PostgreSQL
   25.031  a      PostgreSQL is gone
> expect leader a
> wait 15s until b primary
   27.011  store  the leader key is gone
   27.023  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   27.024  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   27.028  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   27.028  store  the leader key is b's
   27.028  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   27.028  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   27.029  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   27.041  c      follows b from now on -> follow b by a reload [FOL-10]
   27.041  c      follows the leader b [OWN-7 FOL-12]
   27.238  b      PostgreSQL is primary on timeline 2
> tick 10s
   27.238  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   27.250  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   27.250  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   27.251  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   27.301  c      follows the leader b [OWN-7 FOL-12]
   36.424  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   36.437  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   36.474  c      follows the leader b [OWN-7 FOL-12]
> start agent a
> wait 60s until a replica of b
   37.249  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   37.260  a      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   38.249  a      PostgreSQL has recovered in single-user mode
   38.249  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   38.299  a      its history has left that of b: rewinds -> rewind from b [RWD-5 RWD-9]
   38.310  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   40.349  a      has rewound from b
   40.349  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   40.360  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   40.399  a      follows the leader b [OWN-7 FOL-12]
   40.799  a      PostgreSQL accepts connections as standby
   40.799  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   40.810  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   40.849  a      follows the leader b [OWN-7 FOL-12]
