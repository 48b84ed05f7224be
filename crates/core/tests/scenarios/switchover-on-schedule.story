# A scheduled switchover is waited for and then carried out (MAN-L2, TIM-8, INV-S27). In maintenance mode schedules rest
# (MAN-L3, PAU-10); one that has been missed for too long is dropped.

> running a b c
> schedule a b 25s
> tick 20s
   15.011  a      leads; a switchover is scheduled at 2027-01-15T08:01:00Z [MAN-L2 TIM-8]
> expect a primary
> wait 10s until b primary
   25.000  a      asks the other members whether one of them could take over -> ask b [FP-3]
   25.005  a      a switchover to b was requested and it can take over -> stop in order, then release the leader key [MAN-L7 DEM-3]
   25.011  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   25.305  a      PostgreSQL has stopped
   25.305  store  the leader key is gone
   25.305  a      PostgreSQL is down and waits a moment for a leader to follow [REC-11 DEM-11]
   25.317  b      is the requested candidate and nobody holds the leader key: takes it -> acquire the leader key, clear the request [MAN-N1]
   25.317  store  the leader key is b's
   25.317  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   25.317  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   25.318  c      follows b from now on -> follow b by a reload [FOL-10]
   25.318  c      follows the leader b [OWN-7 FOL-12]
   25.328  a      waits for b to be primary, to compare histories [RWD-3]
   25.527  b      PostgreSQL is primary on timeline 2
> wait 20s until a replica of b
   25.527  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
   25.538  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   25.539  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
   25.539  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   25.540  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   25.550  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   25.588  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   25.590  c      follows the leader b [OWN-7 FOL-12]
   25.599  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   25.638  a      follows the leader b [OWN-7 FOL-12]
   26.038  a      PostgreSQL accepts connections as standby
   26.040  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   26.053  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   26.090  c      follows the leader b [OWN-7 FOL-12]
> schedule b a 30s
> pause
> tick 60s
   27.011  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
   27.022  a      divergence check is under way and is not disturbed in pause [ASY-3]
   27.061  a      follows the leader b [OWN-7 FOL-12]
> expect b primary
> resume
> wait 15s until store failover {}
   87.012  b      clears the request to move the leadership: its time has passed -> clear the request [MAN-L4 MAN-L5 MAN-L6 MAN-L8 MAN-L9]
   87.012  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> tick 30s
> expect b primary
