# The agent of the primary is killed and comes back within the lease. PostgreSQL never notices.
# (DCS-E2, MEM-1)

> running a b c
> kill agent a
> tick 10s
> expect a primary
> start agent a
> tick 60s
   10.011  a      the leader key names this member: proves that it is ours -> prove the leader key [DCS-E2 QRK-9 REC-1 OWN-3]
   10.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> expect a primary
> expect a timeline 1
> expect b replica of a
