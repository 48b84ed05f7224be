# Maintenance mode is ended by an operator and by nothing else: not by a lost configuration (PAU-15, IN-D2), which the
# leader writes back (CYC-8), and not by an agent that ends (PAU-13, SHD-1) or comes back (PAU-2).

> running a b c
> pause
> tick 15s
> delete config
> tick 30s
   15.011  a      the store lost the configuration: the leader writes it back -> write config [CYC-8]
   15.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> expect a primary
> stop agent a
> tick 60s
   69.011  store  the leader key is gone
   69.023  b      nobody holds the leader key, and replicas do not stand in pause [HLT-6 PAU-6]
   69.024  c      nobody holds the leader key, and replicas do not stand in pause [HLT-6 PAU-6]
> expect a running
> start agent a
> wait 20s until a primary
  105.011  a      PostgreSQL is primary and nobody holds the leader key in pause: takes it -> acquire the leader key [HLT-4 PAU-5]
  105.011  store  the leader key is a's
  105.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> tick 30s
  105.023  b      follows the leader a [OWN-7 FOL-12]
  105.024  c      follows the leader a [OWN-7 FOL-12]
> crash postgres b
  135.011  b      PostgreSQL is gone
> tick 60s
  135.011  b      PostgreSQL is down and is not started in pause [PAU-9]
> expect b down
> resume
> wait 30s until b replica of a
  195.023  b      compares its history with that of a -> compare histories with a [RWD-2 RWD-3]
  195.073  b      starts PostgreSQL as a replica of a -> start as standby of a [REC-11 NTF-4]
  195.123  b      follows the leader a [OWN-7 FOL-12]
  195.523  b      PostgreSQL accepts connections as standby
