# An operator writes another member's name into the leader key. The old leader stops without touching the key;
# the named member leads only once it has proved the key to be its own.
# (OWN-4, DEM-13, RACE-5)

> running a b c
> put leader b
    0.000  store  the leader key is b's
> wait 30s until b primary
    0.011  a      PostgreSQL is primary, but the leader key is held by b -> stop at once [OWN-4 FOL-3 DCS-2]
    0.012  b      the leader key names this member, which is a replica: asks the others for a living primary first -> ask a and c [DCS-E2 RACE-3 RACE-5]
    0.013  c      follows b from now on -> follow b by a reload [FOL-10]
    0.013  c      follows the leader b [OWN-7 FOL-12]
    0.017  b      a is primary [RACE-5 QRK-3]
    0.022  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.034  b      the leader key names this member, which is a replica: asks the others for a living primary first -> ask a and c [DCS-E2 RACE-3 RACE-5]
    0.039  b      a is primary [RACE-5 QRK-3]
    0.111  a      PostgreSQL has stopped
    0.111  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
    0.122  a      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.123  b      the leader key names this member, which is a replica: asks the others for a living primary first -> ask a and c [DCS-E2 RACE-3 RACE-5]
    0.128  b      the leader key names this member: proves that it is ours -> prove the leader key [DCS-E2 QRK-9 REC-1 OWN-3]
    0.128  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
    0.128  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.338  b      PostgreSQL is primary on timeline 2
> wait 40s until a replica of b
    0.338  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
    0.350  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
    0.350  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
    0.351  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    0.401  c      follows the leader b [OWN-7 FOL-12]
    1.111  a      PostgreSQL has recovered in single-user mode
    1.111  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    1.161  a      its history has left that of b: rewinds -> rewind from b [RWD-5 RWD-9]
    1.172  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    1.174  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    1.187  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    1.224  c      follows the leader b [OWN-7 FOL-12]
    3.211  a      has rewound from b
    3.211  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
    3.222  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    3.261  a      follows the leader b [OWN-7 FOL-12]
    3.661  a      PostgreSQL accepts connections as standby
    3.661  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
    3.672  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    3.711  a      follows the leader b [OWN-7 FOL-12]
> wait 40s until c replica of b
> tick 30s
> expect b primary
