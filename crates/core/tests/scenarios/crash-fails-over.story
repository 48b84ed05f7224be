# The same with primary_start_timeout 0: a fit replica takes over at once, and the old primary comes back as a replica.
# (REC-2, FP-1, FP-7, IN-C6)

> running a b c
> set primary_start_timeout 0
> tick 15s
> crash postgres a
   15.000  a      PostgreSQL is gone
> wait 10s until b primary
   15.000  a      asks the other members whether one of them could take over -> ask b and c [FP-3]
   15.005  a      PostgreSQL ended unexpectedly, primary_start_timeout is 0 and another member can take over -> stop at once, then release the leader key [REC-2]
   15.011  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   15.105  store  the leader key is gone
   15.105  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   15.116  a      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   15.117  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   15.118  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   15.122  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   15.122  store  the leader key is b's
   15.122  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   15.122  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   15.123  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   15.135  c      follows b from now on -> follow b by a reload [FOL-10]
   15.135  c      follows the leader b [OWN-7 FOL-12]
   15.332  b      PostgreSQL is primary on timeline 2
> expect b timeline 2
> wait 20s until a replica of b
   15.332  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   15.344  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   15.344  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   15.345  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   15.395  c      follows the leader b [OWN-7 FOL-12]
   16.105  a      PostgreSQL has recovered in single-user mode
   16.105  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   16.155  a      its history has left that of b: rewinds -> rewind from b [RWD-5 RWD-9]
   16.166  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   16.168  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   16.181  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   16.218  c      follows the leader b [OWN-7 FOL-12]
   18.205  a      has rewound from b
   18.205  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   18.216  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   18.255  a      follows the leader b [OWN-7 FOL-12]
   18.655  a      PostgreSQL accepts connections as standby
   18.655  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   18.666  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   18.705  a      follows the leader b [OWN-7 FOL-12]
> wait 20s until c replica of b
