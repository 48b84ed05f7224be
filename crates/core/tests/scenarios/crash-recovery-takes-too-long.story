# Crash recovery of the primary takes longer than primary_start_timeout: a replica takes over (STA-5).
# (STA-5, REC-14, FP-4)

> running a b c
> set primary_start_timeout 15
> tick 15s
> slow a 120s
> crash postgres a
   15.000  a      PostgreSQL is gone
> tick 10s
   15.000  a      PostgreSQL ended unexpectedly while this member holds the leader lease: starts it again -> start as primary [REC-1 REC-3]
   15.011  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   15.050  a      PostgreSQL is starting [STA-6 STA-7]
> expect nobody primary
> expect leader a
> slow a 400ms
> wait 20s until b primary
   30.050  a      asks the other members whether one of them could take over -> ask b and c [FP-3]
   30.055  a      PostgreSQL takes longer than primary_start_timeout to start and another member can take over -> stop at once, then release the leader key [STA-5]
   30.066  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   30.155  a      PostgreSQL has stopped
   30.155  store  the leader key is gone
   30.155  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   30.166  a      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   30.167  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   30.168  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   30.172  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   30.172  store  the leader key is b's
   30.172  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   30.172  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   30.173  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   30.185  c      follows b from now on -> follow b by a reload [FOL-10]
   30.185  c      follows the leader b [OWN-7 FOL-12]
   30.382  b      PostgreSQL is primary on timeline 2
> wait 60s until a replica of b
   30.382  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   30.394  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   30.394  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   30.395  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   30.445  c      follows the leader b [OWN-7 FOL-12]
   31.155  a      PostgreSQL has recovered in single-user mode
   31.155  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   31.205  a      its history has left that of b: rewinds -> rewind from b [RWD-5 RWD-9]
   31.216  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   31.218  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   31.231  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   31.268  c      follows the leader b [OWN-7 FOL-12]
   33.255  a      has rewound from b
   33.255  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   33.266  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   33.305  a      follows the leader b [OWN-7 FOL-12]
   33.705  a      PostgreSQL accepts connections as standby
   33.705  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   33.716  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   33.755  a      follows the leader b [OWN-7 FOL-12]
