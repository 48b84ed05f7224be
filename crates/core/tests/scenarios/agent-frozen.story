# The agent of the primary gets no processor time for longer than the lease. The fencer kills PostgreSQL in time; when
# the agent wakes up it believes nothing it believed before.
# (BEY-2, QRK-1, QRK-14)

> running a b c
> freeze agent a
> wait 30s until a down
   24.981  a      fencer: the deadline has passed, kills PostgreSQL
   25.031  a      PostgreSQL is gone
> expect leader a
> wait 15s until b primary
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
> tick 60s
   29.233  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   29.245  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   29.245  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   29.246  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   29.296  c      follows the leader b [OWN-7 FOL-12]
   36.424  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   36.437  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   36.474  c      follows the leader b [OWN-7 FOL-12]
> thaw agent a
> wait 60s until a replica of b
   89.233  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   89.233  a      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   90.233  a      PostgreSQL has recovered in single-user mode
   90.233  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   90.283  a      its history has left that of b: rewinds -> rewind from b [RWD-5 RWD-9]
   90.294  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   92.333  a      has rewound from b
   92.333  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   92.344  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   92.383  a      follows the leader b [OWN-7 FOL-12]
   92.783  a      PostgreSQL accepts connections as standby
   92.783  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   92.794  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   92.833  a      follows the leader b [OWN-7 FOL-12]
> expect b primary
