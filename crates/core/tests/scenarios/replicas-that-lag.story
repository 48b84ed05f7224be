# Both replicas are further behind than maximum_lag_on_failover when the primary is lost (RACE-1, IN-C4, INV-S8, FP-4):
# nobody stands by itself, and a leader does not step down for one of them. An operator may decide to lose what they lack.

> running a b c
> set maximum_lag_on_failover 4096
> tick 15s
> cut a b
> cut a c
> tick 30s
> switchover a b
> wait 5s until store failover {}
   45.011  a      asks the other members whether one of them could take over -> ask b [FP-3]
   47.011  a      clears the request to move the leadership: no member that it allows can take over -> clear the request [MAN-L4 MAN-L5 MAN-L6 MAN-L8 MAN-L9]
   47.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> expect a primary
> kill node a
> tick 60s
   75.011  store  the leader key is gone
   75.023  b      135168 bytes behind the last leader, more than the 4096 allowed [RACE-1]
   75.024  c      135168 bytes behind the last leader, more than the 4096 allowed [RACE-1]
> expect nobody primary
> expect leader nobody
> failover c
> wait 10s until c primary
  107.023  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
  107.024  c      is the requested candidate and nobody holds the leader key: takes it -> acquire the leader key, clear the request [MAN-N1]
  107.024  store  the leader key is c's
  107.024  c      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
  107.024  c      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  107.234  c      PostgreSQL is primary on timeline 2
> wait 20s until b replica of c
  107.234  c      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
  107.247  c      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
  107.247  c      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
  109.023  b      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
  109.073  b      follows c from now on -> follow c by a reload [FOL-10]
  109.073  b      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
  109.123  b      follows the leader c [OWN-7 FOL-12]
