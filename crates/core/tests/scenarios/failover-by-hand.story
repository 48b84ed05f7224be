# A failover to a named member while the leader is well goes like a switchover.

> running a b c
> failover c
> wait 10s until c primary
    0.011  a      asks the other members whether one of them could take over -> ask c [FP-3]
    0.016  a      a switchover to c was requested and it can take over -> stop in order, then release the leader key [MAN-L7 DEM-3]
    0.027  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.316  a      PostgreSQL has stopped
    0.316  store  the leader key is gone
    0.316  a      PostgreSQL is down and waits a moment for a leader to follow [REC-11 DEM-11]
    0.328  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
    0.329  c      is the requested candidate and nobody holds the leader key: takes it -> acquire the leader key, clear the request [MAN-N1]
    0.329  store  the leader key is c's
    0.329  c      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
    0.329  c      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.333  b      leaves the leadership to the requested candidate c [MAN-N2 MAN-N4]
    0.340  a      waits for c to be primary, to compare histories [RWD-3]
    0.341  b      follows c from now on -> follow c by a reload [FOL-10]
    0.341  b      follows the leader c [OWN-7 FOL-12]
    0.539  c      PostgreSQL is primary on timeline 2
> wait 30s until a replica of c
    0.539  c      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
    0.550  a      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
    0.551  b      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
    0.552  c      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
    0.552  c      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
    0.563  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.564  b      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.600  a      starts PostgreSQL as a replica of c -> start as standby of c [REC-11 NTF-4]
    0.601  b      follows the leader c [OWN-7 FOL-12]
    0.611  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.650  a      follows the leader c [OWN-7 FOL-12]
    1.050  a      PostgreSQL accepts connections as standby
    1.051  b      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
    1.063  b      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    1.101  b      follows the leader c [OWN-7 FOL-12]
> wait 30s until b replica of c
