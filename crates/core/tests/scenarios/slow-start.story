# A server that takes its time: the key is kept and renewed meanwhile (STA-7, ASY-2, STA-1). One that crashes again while
# it is starting has failed to start (STA-2, REC-12, CYC-12): the key is given up. Maintenance mode does not judge a start
# (STA-3, PAU-9); a standby that starts goes on with the cycle (STA-8).

> running a b c
> slow a 20s
> crash postgres a
    0.000  a      PostgreSQL is gone
> tick 10s
    0.000  a      PostgreSQL ended unexpectedly while this member holds the leader lease: starts it again -> start as primary [REC-1 REC-3]
    0.011  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.050  a      PostgreSQL is starting [STA-6 STA-7]
> expect leader a
> wait 15s until a primary
   20.050  a      PostgreSQL accepts connections as primary
> tick 5s
   20.050  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> expect a timeline 1
> crash postgres a
   25.050  a      PostgreSQL is gone
> tick 5s
   25.050  a      PostgreSQL ended unexpectedly while this member holds the leader lease: starts it again -> start as primary [REC-1 REC-3]
   25.061  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   25.100  a      PostgreSQL is starting [STA-6 STA-7]
> crash postgres a
   30.050  a      PostgreSQL is gone
> wait 60s until b primary
   30.050  a      PostgreSQL did not start: gives up the leader key (it ended while it was starting) -> release the leader key [REC-12]
   30.050  store  the leader key is gone
   30.050  a      PostgreSQL did not start, another attempt follows: it ended while it was starting [REC-12]
   30.062  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   30.063  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   30.067  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   30.067  store  the leader key is b's
   30.067  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   30.067  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   30.068  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   30.080  c      follows b from now on -> follow b by a reload [FOL-10]
   30.080  c      follows the leader b [OWN-7 FOL-12]
   30.277  b      PostgreSQL is primary on timeline 2
> tick 5s
   30.277  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   30.289  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   30.289  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   30.290  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   30.340  c      follows the leader b [OWN-7 FOL-12]
> pause
> tick 60s
   35.288  a      PostgreSQL is down and is not started in pause [PAU-9]
   35.290  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   35.303  c      divergence check is under way and is not disturbed in pause [ASY-3]
   35.340  c      follows the leader b [OWN-7 FOL-12]
> resume
> tick 5s
   95.288  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   96.288  a      PostgreSQL has recovered in single-user mode
   96.288  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   96.338  a      its history has left that of b: rewinds -> rewind from b [RWD-5 RWD-9]
   96.349  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   98.388  a      has rewound from b
   98.388  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   98.399  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   98.438  a      follows the leader b [OWN-7 FOL-12]
> pause
> tick 10s
> resume
> wait 60s until a replica of b
  118.438  a      PostgreSQL accepts connections as standby
  118.438  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
  118.449  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  118.488  a      follows the leader b [OWN-7 FOL-12]
