# An agent that is asked to end stops PostgreSQL in order, publishes the last position and gives up the key (SHD-3, SHD-4,
# SHD-5, STS-3). Another member takes over at once, without loss.

> running a b c
> stop agent a
    0.000  a      PostgreSQL has stopped
    0.000  store  the leader key is gone
> expect a down
> expect leader nobody
> wait 10s until b primary
    0.012  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
    0.013  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
    0.017  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
    0.017  store  the leader key is b's
    0.017  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
    0.017  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.018  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
    0.030  c      follows b from now on -> follow b by a reload [FOL-10]
    0.030  c      follows the leader b [OWN-7 FOL-12]
    0.227  b      PostgreSQL is primary on timeline 2
> wait 10s until c replica of b
> start agent a
> wait 20s until a replica of b
    0.227  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
    0.238  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    0.239  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
    0.239  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
    0.240  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    0.249  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.288  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
    0.290  c      follows the leader b [OWN-7 FOL-12]
    0.299  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.338  a      follows the leader b [OWN-7 FOL-12]
    0.738  a      PostgreSQL accepts connections as standby
