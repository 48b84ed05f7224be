# A planned switchover: stop in order, hand over the last WAL, release the key, promote; the old primary needs no rewind.
# (WAK-1, WAK-2, WAK-5, QRK-12, PRO-8, DEM-1, RWD-7)

> running a b c
> switchover a b
> wait 5s until b primary
    0.011  a      asks the other members whether one of them could take over -> ask b [FP-3]
    0.016  a      a switchover to b was requested and it can take over -> stop in order, then release the leader key [MAN-L7 DEM-3]
    0.027  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.316  a      PostgreSQL has stopped
    0.316  store  the leader key is gone
    0.316  a      PostgreSQL is down and waits a moment for a leader to follow [REC-11 DEM-11]
    0.328  b      is the requested candidate and nobody holds the leader key: takes it -> acquire the leader key, clear the request [MAN-N1]
    0.328  store  the leader key is b's
    0.328  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
    0.328  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.329  c      follows b from now on -> follow b by a reload [FOL-10]
    0.329  c      follows the leader b [OWN-7 FOL-12]
    0.339  a      waits for b to be primary, to compare histories [RWD-3]
    0.538  b      PostgreSQL is primary on timeline 2
> wait 10s until a replica of b
    0.538  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
    0.549  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    0.550  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
    0.550  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
    0.551  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    0.561  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.599  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
    0.601  c      follows the leader b [OWN-7 FOL-12]
    0.610  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.649  a      follows the leader b [OWN-7 FOL-12]
    1.049  a      PostgreSQL accepts connections as standby
    1.051  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    1.064  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    1.101  c      follows the leader b [OWN-7 FOL-12]
> wait 10s until c replica of b
> expect a timeline 2
> tick 30s
    5.011  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    5.022  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    5.061  a      follows the leader b [OWN-7 FOL-12]
> expect b primary
