# An operator deletes the leader key while the leader is well. The others see the primary alive and do not
# stand. The leader learns it from its next renewal, asks the others, and takes the key back: nobody else is primary.
# (QRK-2, QRK-9, CYC-16)

> running a b c
> delete leader
    0.000  store  the leader key is gone
> wait 20s until a primary
    0.011  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
    0.012  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
    0.013  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
    0.016  a      PostgreSQL is primary, no other member is, and nobody holds the leader key: takes it -> acquire the leader key [HLT-5 QRK-2]
    0.016  store  the leader key is a's
    0.016  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> tick 30s
    0.017  b      a is primary [RACE-5 QRK-3]
    0.018  c      a is primary [RACE-5 QRK-3]
    0.028  b      follows the leader a [OWN-7 FOL-12]
    0.029  c      follows the leader a [OWN-7 FOL-12]
> expect a timeline 1
> expect b replica of a
