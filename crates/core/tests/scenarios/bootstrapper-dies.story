# The member that creates the cluster dies in the middle of it (QRK-11). Its claim goes with its lease, and another member
# creates the cluster. The remains of the first attempt are never taken for the cluster (DIR-5).

> members a b c
> tick 500ms
    0.011  a      the cluster was never initialised: races to create it -> create the cluster [BOO-1 BOO-3]
    0.012  b      another member is creating the cluster [BOO-4 BOO-7 BOO-14]
    0.013  c      another member is creating the cluster [BOO-4 BOO-7 BOO-14]
    0.022  a      bootstrap is under way [ASY-2 ASY-3 ASY-6 ASY-7]
> kill node a
> expect nobody primary
> wait 60s until b primary
   30.023  b      the cluster was never initialised: races to create it -> create the cluster [BOO-1 BOO-3]
   30.035  b      bootstrap is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   31.023  b      initdb is done
   31.423  b      PostgreSQL accepts connections as primary
   32.023  store  the leader key is b's
> wait 20s until c replica of b
   32.023  b      another member is creating the cluster [BOO-4 BOO-7 BOO-14]
   32.035  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   32.036  c      the data directory is empty: copies b -> copy b [BOO-5]
   32.049  c      clone is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   34.036  c      has copied b
   34.036  c      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   34.049  c      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   34.086  c      follows the leader b [OWN-7 FOL-12]
   34.486  c      PostgreSQL accepts connections as standby
> start node a
> tick 30s
   35.011  a      the data directory holds no valid system identifier; it is not touched, reinitialise the member [DIR-5]
> expect b primary
> expect a down
