# Everything in the store is deleted under a healthy leader. Replicas neither stand nor restore anything; the
# leader takes its key back and restores identifier, configuration and history.
# (CYC-7, CYC-8, DIR-10, INV-S20)

> running a b c
> set loop_wait 5
> tick 15s
> wipe store
   15.000  store  the leader key is gone
> wait 20s until a primary
   15.011  a      the store has no valid system identifier: stores ours -> write initialize [DIR-9 CYC-7]
   15.011  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
   15.012  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   15.013  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   15.016  a      PostgreSQL is primary, no other member is, and nobody holds the leader key: takes it -> acquire the leader key [HLT-5 QRK-2]
   15.016  store  the leader key is a's
   15.016  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> tick 30s
   15.017  b      a is primary [RACE-5 QRK-3]
   15.018  c      a is primary [RACE-5 QRK-3]
   15.022  a      the store lost the configuration: the leader writes it back -> write config [CYC-8]
   15.022  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   15.028  b      follows the leader a [OWN-7 FOL-12]
   15.029  c      follows the leader a [OWN-7 FOL-12]
> expect a primary
> expect a timeline 1
> expect b replica of a
> expect c replica of a
