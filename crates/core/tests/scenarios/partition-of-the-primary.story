# The primary's machine is cut off from everything. It stops by its own clock before its lease can be given away; only
# then another member is elected. What it wrote alone is rewound.
# (TIM-4, TIM-5, CYC-20, RWD-5)

> running a b c
> partition a
> tick 20s
    5.000  a      the store does not answer (no answer), but the leader lease has not run out [TIM-5 DCSF-6]
> expect a running
> wait 15s until b primary
   21.231  a      the store does not answer (no answer) and the leader lease is running out -> stop in order, then start read-only [DCSF-5 TIM-4 QRK-1]
   21.531  a      PostgreSQL has stopped
   21.531  a      the store does not answer (no answer); a replica keeps running [DCSF-3]
   21.931  a      PostgreSQL accepts connections as standby
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
> wait 10s until c replica of b
> tick 30s
   29.233  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   29.245  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   29.245  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   29.246  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   29.296  c      follows the leader b [OWN-7 FOL-12]
   36.424  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   36.437  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   36.474  c      follows the leader b [OWN-7 FOL-12]
> heal a
> wait 60s until a replica of b
   59.244  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   59.244  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   59.294  a      its history has left that of b: rewinds -> rewind from b [RWD-5 RWD-9]
   59.305  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   59.344  a      PostgreSQL has stopped
   61.344  a      has rewound from b
   61.344  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   61.355  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   61.394  a      follows the leader b [OWN-7 FOL-12]
   61.794  a      PostgreSQL accepts connections as standby
   61.794  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   61.805  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   61.844  a      follows the leader b [OWN-7 FOL-12]
