# A primary whose lease has run out, on a timeline that the cluster has left behind, stops before anything else instead
# of taking a free key back (QRK-14, INV-S9). In maintenance mode an operator has made another member the primary
# meanwhile (MAN-N1).

> running a b c
> pause
> tick 15s
> partition a
> tick 60s
   20.000  a      the store does not answer (no answer); nothing is done in pause [DCSF-1 PAU-8]
   39.011  store  the leader key is gone
   39.023  b      nobody holds the leader key, and replicas do not stand in pause [HLT-6 PAU-6]
   39.024  c      nobody holds the leader key, and replicas do not stand in pause [HLT-6 PAU-6]
> failover b
> wait 20s until b primary
   75.012  b      is the requested candidate and nobody holds the leader key: takes it -> acquire the leader key [MAN-N1]
   75.012  store  the leader key is b's
   75.012  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   75.012  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   75.013  c      follows b from now on -> follow b by a reload [FOL-10]
   75.013  c      follows the leader b [OWN-7 FOL-12]
   75.222  b      PostgreSQL is primary on timeline 2
> tick 15s
   75.222  b      clears the request to move the leadership: this member is the leader already -> clear the request [MAN-L4 MAN-L5 MAN-L6 MAN-L8 MAN-L9]
   75.222  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   75.234  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   75.234  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   75.235  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   75.285  c      follows the leader b [OWN-7 FOL-12]
   76.424  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   76.437  c      divergence check is under way and is not disturbed in pause [ASY-3]
   76.474  c      follows the leader b [OWN-7 FOL-12]
# The new primary and its replica are lost, and maintenance ends, before the old primary is back:
> kill node b
> kill node c
> tick 60s
  117.012  store  the leader key is gone
> resume
> heal a
> wait 10s until nobody primary
  150.233  a      the leader lease could not be renewed and is running out -> stop in order, then start read-only [DCSF-6 TIM-4]
  150.233  a      PostgreSQL has stopped
> wait 20s until a primary
  150.233  a      nobody holds the leader key, but PostgreSQL is still starting [HLT-3]
  150.633  a      PostgreSQL accepts connections as standby
  150.633  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
  152.633  a      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
  152.633  store  the leader key is a's
  152.633  a      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
  152.633  a      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  152.843  a      PostgreSQL is primary on timeline 2
> expect a timeline 2
