# The store falls silent while the leader steps down for a switchover, so that the key cannot be released. When it is
# back, the key still names the old leader, which leads again. It does not step down for the same request once more.
# (INV-S17, MAN-L7)

> running a b c
> switchover a b
> tick 50ms
    0.011  a      asks the other members whether one of them could take over -> ask b [FP-3]
    0.016  a      a switchover to b was requested and it can take over -> stop in order, then release the leader key [MAN-L7 DEM-3]
    0.027  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
> store down
> wait 20s until nobody primary
    0.316  a      PostgreSQL has stopped
> store up
> wait 60s until a primary
    0.316  a      PostgreSQL is down and waits a moment for a leader to follow [REC-11 DEM-11]
    3.316  a      the leader key names this member: proves that it is ours -> prove the leader key [DCS-E2 QRK-9 REC-1 OWN-3]
    3.316  a      holds the leader lease: starts PostgreSQL read-only, to promote it -> start as standby of nobody [REC-7]
    3.316  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    3.366  a      the request to move the leadership has had its effect, and clearing it was not confirmed: clears it again -> clear the request [UNL-4 INV-S17]
    3.366  a      PostgreSQL is starting [STA-6 STA-7]
    3.766  a      PostgreSQL accepts connections as standby
    3.766  a      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
    3.777  a      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    3.976  a      PostgreSQL is primary on timeline 2
> tick 60s
    3.976  a      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
    3.987  a      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
    3.987  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
    4.488  b      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
    4.489  c      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
    4.500  b      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    4.502  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    4.538  b      follows the leader a [OWN-7 FOL-12]
    4.539  c      follows the leader a [OWN-7 FOL-12]
> expect a primary
