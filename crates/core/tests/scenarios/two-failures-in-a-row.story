# The new primary dies while the old one is still away: the third member leads, and both come back.

> running a b c
> kill node a
> wait 40s until b primary
   27.011  store  the leader key is gone
   27.023  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   27.024  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   29.023  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   29.023  store  the leader key is b's
   29.023  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   29.023  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   29.024  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   29.036  c      follows b from now on -> follow b by a reload [FOL-10]
   29.036  c      follows the leader b [OWN-7 FOL-12]
   29.233  b      PostgreSQL is primary on timeline 2
> wait 20s until c replica of b
> tick 5s
   29.233  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   29.245  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   29.245  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   29.246  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   29.296  c      follows the leader b [OWN-7 FOL-12]
> kill node b
> wait 40s until c primary
   36.424  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   36.437  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   36.474  c      follows the leader b [OWN-7 FOL-12]
   46.424  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   46.474  c      follows the leader b [OWN-7 FOL-12]
   56.424  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   56.474  c      follows the leader b [OWN-7 FOL-12]
   59.023  store  the leader key is gone
   59.036  c      nobody holds the leader key: asks the other members -> ask b [PEER-1 RACE-3]
   61.036  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   61.036  store  the leader key is c's
   61.036  c      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   61.036  c      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   61.246  c      PostgreSQL is primary on timeline 3
> start node a
> start node b
> wait 60s until a replica of c
   61.246  c      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   61.257  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   61.258  b      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   61.259  c      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   61.259  c      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   61.268  a      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   61.270  b      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   62.257  a      PostgreSQL has recovered in single-user mode
   62.257  a      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
   62.258  b      PostgreSQL has recovered in single-user mode
   62.258  b      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
   62.307  a      its history has left that of c: rewinds -> rewind from c [RWD-5 RWD-9]
   62.308  b      its history has left that of c: rewinds -> rewind from c [RWD-5 RWD-9]
   62.318  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   62.319  b      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   64.357  a      has rewound from c
   64.357  a      starts PostgreSQL as a replica of c -> start as standby of c [REC-11 NTF-4]
   64.358  b      has rewound from c
   64.358  b      starts PostgreSQL as a replica of c -> start as standby of c [REC-11 NTF-4]
   64.368  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   64.369  b      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   64.407  a      follows the leader c [OWN-7 FOL-12]
   64.408  b      follows the leader c [OWN-7 FOL-12]
   64.807  a      PostgreSQL accepts connections as standby
   64.807  a      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
   64.808  b      PostgreSQL accepts connections as standby
   64.808  b      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
   64.818  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   64.819  b      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   64.857  a      follows the leader c [OWN-7 FOL-12]
   64.858  b      follows the leader c [OWN-7 FOL-12]
> wait 60s until b replica of c
> expect c timeline 3
