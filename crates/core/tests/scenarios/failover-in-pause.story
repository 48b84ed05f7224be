# In maintenance mode a failover or switchover to a named candidate is carried out (PAU-10, PAU-14, MAN-L1, OWN-1): the
# others leave the key to it (MAN-N2, PAU-6, HLT-2), and the name stays in the request until it is primary (UNL-4).

> running a b c
> pause
> tick 15s
> switchover a b
> wait 20s until b primary
   15.011  a      asks the other members whether one of them could take over -> ask b [FP-3]
   15.016  a      a switchover to b was requested and it can take over -> stop in order, then release the leader key [MAN-L7 DEM-3]
   15.027  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   15.316  a      PostgreSQL has stopped
   15.316  store  the leader key is gone
   15.316  a      holds the leader key in pause without a running primary: gives it up -> release the leader key [PAU-3 PAU-4 OWN-2]
   15.316  a      PostgreSQL is down and waits a moment for a leader to follow [REC-11 DEM-11]
   15.328  b      is the requested candidate and nobody holds the leader key: takes it -> acquire the leader key, rewrite the request [MAN-N1]
   15.328  store  the leader key is b's
   15.328  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   15.328  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   15.329  c      follows b from now on -> follow b by a reload [FOL-10]
   15.329  c      follows the leader b [OWN-7 FOL-12]
   15.339  a      waits for b to be primary, to compare histories [RWD-3]
   15.538  b      PostgreSQL is primary on timeline 2
> wait 30s until a running
   15.538  b      clears the request to move the leadership: this member is the leader already -> clear the request [MAN-L4 MAN-L5 MAN-L6 MAN-L8 MAN-L9]
   15.538  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   15.549  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   15.550  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   15.550  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   15.551  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   15.561  a      divergence check is under way and is not disturbed in pause [ASY-3]
   15.599  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   15.601  c      follows the leader b [OWN-7 FOL-12]
   15.610  a      start is under way and is not disturbed in pause [ASY-3]
   15.649  a      follows the leader b [OWN-7 FOL-12]
   16.049  a      PostgreSQL accepts connections as standby
> tick 15s
   16.051  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   16.064  c      divergence check is under way and is not disturbed in pause [ASY-3]
   16.101  c      follows the leader b [OWN-7 FOL-12]
   25.016  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   25.027  a      divergence check is under way and is not disturbed in pause [ASY-3]
   25.066  a      follows the leader b [OWN-7 FOL-12]
> expect b primary
> switchover b
> wait 15s until store failover {}
   31.061  b      clears the request to move the leadership: it names no candidate, which it must in pause -> clear the request [MAN-L4 MAN-L5 MAN-L6 MAN-L8 MAN-L9]
   31.061  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> resume
> tick 15s
> wait 60s until a replica of b
> wait 60s until c replica of b
