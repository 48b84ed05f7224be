# A replica may stream from another one (NTF-3). When that one is gone it follows the leader (NTF-4); a member that names
# itself is not meant (NTF-5, INV-S22); one tagged nostream follows nobody (NTF-1, IN-T4).

> running a b c
> tag c replicatefrom b
> wait 5s until c replica of b
    0.000  c      follows b from now on -> follow b by a reload [FOL-10]
    0.000  c      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
    0.013  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.050  c      follows the leader a [OWN-7 FOL-12]
> kill node b
> tick 60s
   26.436  c      follows a from now on -> follow a by a reload [FOL-10]
   26.436  c      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
   26.486  c      follows the leader a [OWN-7 FOL-12]
> wait 20s until c replica of a
> start node b
> wait 20s until b replica of a
   61.012  b      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
   61.024  b      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   61.025  c      follows b from now on -> follow b by a reload [FOL-10]
   61.025  c      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
   61.062  b      starts PostgreSQL as a replica of a -> start as standby of a [REC-11 NTF-4]
   61.075  c      follows the leader a [OWN-7 FOL-12]
   61.112  b      follows the leader a [OWN-7 FOL-12]
   61.512  b      PostgreSQL accepts connections as standby
> wait 20s until c replica of b
> tag c replicatefrom c
> wait 20s until c replica of a
   62.000  c      follows a from now on -> follow a by a reload [FOL-10]
   62.000  c      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
   62.013  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   62.050  c      follows the leader a [OWN-7 FOL-12]
> tag c nostream
> tick 15s
   63.000  c      follows nobody from now on -> follow nobody by a reload [FOL-10]
   63.000  c      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
   63.013  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   63.050  c      follows the leader a [OWN-7 FOL-12]
> expect c running
> kill node a
> wait 45s until b primary
  105.011  store  the leader key is gone
  105.023  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
  105.024  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
  107.023  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
  107.023  store  the leader key is b's
  107.023  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
  107.023  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  107.024  c      b is ahead (0/306F000, this member has 0/3060000) [RACE-6 QRK-4]
  107.036  c      follows the leader b [OWN-7 FOL-12]
  107.233  b      PostgreSQL is primary on timeline 2
