# The primary crashes and cannot be started again, a full disk for example: it must not keep the key (REC-12).
# (REC-12, CYC-12, MEM-6)

> running a b c
> broken a
> crash postgres a
    0.000  a      PostgreSQL is gone
> wait 10s until b primary
    0.000  a      PostgreSQL ended unexpectedly while this member holds the leader lease: starts it again -> start as primary [REC-1 REC-3]
    0.011  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.050  a      start failed: the server refuses to start
    0.050  a      PostgreSQL did not start: gives up the leader key (the server refuses to start) -> release the leader key [REC-12]
    0.050  store  the leader key is gone
    0.050  a      PostgreSQL did not start, another attempt follows: the server refuses to start [REC-12]
    0.062  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
    0.063  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
    0.067  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
    0.067  store  the leader key is b's
    0.067  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
    0.067  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.068  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
    0.080  c      follows b from now on -> follow b by a reload [FOL-10]
    0.080  c      follows the leader b [OWN-7 FOL-12]
    0.277  b      PostgreSQL is primary on timeline 2
> expect a down
> tick 30s
    0.277  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
    0.289  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
    0.289  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
    0.290  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    0.340  c      follows the leader b [OWN-7 FOL-12]
    6.424  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    6.437  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    6.474  c      follows the leader b [OWN-7 FOL-12]
   10.050  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   11.050  a      PostgreSQL has recovered in single-user mode
   11.050  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   11.100  a      its history has left that of b: rewinds -> rewind from b [RWD-5 RWD-9]
   11.111  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   13.150  a      has rewound from b
   13.150  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   13.161  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   13.200  a      start failed: the server refuses to start
   13.200  a      PostgreSQL did not start, another attempt follows: the server refuses to start [REC-12]
   23.200  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   23.250  a      start failed: the server refuses to start
   23.250  a      PostgreSQL did not start, another attempt follows: the server refuses to start [REC-12]
> mended a
> wait 30s until a replica of b
   33.250  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   33.300  a      follows the leader b [OWN-7 FOL-12]
   33.700  a      PostgreSQL accepts connections as standby
   33.700  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   33.711  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   33.750  a      follows the leader b [OWN-7 FOL-12]
