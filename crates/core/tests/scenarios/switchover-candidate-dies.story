# The candidate of a switchover dies after the old primary has stepped down for it. The named member is not waited for:
# everybody judges anew.
# (MAN-N5, MAN-N8, UNL-2)

> running a b c
> switchover a b
> wait 5s until leader nobody
    0.011  a      asks the other members whether one of them could take over -> ask b [FP-3]
    0.016  a      a switchover to b was requested and it can take over -> stop in order, then release the leader key [MAN-L7 DEM-3]
    0.027  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.316  a      PostgreSQL has stopped
    0.316  store  the leader key is gone
> kill node b
> wait 10s until c primary
    0.316  a      PostgreSQL is down and waits a moment for a leader to follow [REC-11 DEM-11]
    0.329  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
    2.329  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key, clear the request [UNL-3 RACE-10 DCS-1]
    2.329  store  the leader key is c's
    2.329  c      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
    2.329  c      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    2.340  a      waits for c to be primary, to compare histories [RWD-3]
    2.539  c      PostgreSQL is primary on timeline 2
> wait 30s until a replica of c
    2.539  c      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
    2.550  a      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
    2.552  c      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
    2.552  c      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
    2.563  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    2.600  a      starts PostgreSQL as a replica of c -> start as standby of c [REC-11 NTF-4]
    2.611  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    2.650  a      follows the leader c [OWN-7 FOL-12]
    3.050  a      PostgreSQL accepts connections as standby
> tick 30s
    5.011  a      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
    5.022  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    5.061  a      follows the leader c [OWN-7 FOL-12]
> start node b
> wait 60s until b replica of c
   34.012  b      compares its history with that of c -> compare histories with c [RWD-2 RWD-3]
   34.024  b      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   34.062  b      starts PostgreSQL as a replica of c -> start as standby of c [REC-11 NTF-4]
   34.112  b      follows the leader c [OWN-7 FOL-12]
   34.512  b      PostgreSQL accepts connections as standby
