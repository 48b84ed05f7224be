# As before, but the first bootstrapper was only frozen, with its PostgreSQL up. It looks at its claim once more before
# it takes the key (BEY-23): what it created is moved aside, and its agent starts anew.

> members a b c
> tick 1500ms
    0.011  a      the cluster was never initialised: races to create it -> create the cluster [BOO-1 BOO-3]
    0.012  b      another member is creating the cluster [BOO-4 BOO-7 BOO-14]
    0.013  c      another member is creating the cluster [BOO-4 BOO-7 BOO-14]
    0.022  a      bootstrap is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    1.011  a      initdb is done
    1.411  a      PostgreSQL accepts connections as primary
> freeze agent a
> wait 60s until b primary
   30.023  b      the cluster was never initialised: races to create it -> create the cluster [BOO-1 BOO-3]
   30.035  b      bootstrap is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   31.023  b      initdb is done
   31.423  b      PostgreSQL accepts connections as primary
   32.023  store  the leader key is b's
> thaw agent a
> wait 10s until a agent ended
   32.023  a      PostgreSQL has stopped
   32.023  a      what was created is moved aside
   32.023  a      bootstrap failed: the claim to create the cluster was lost
   32.023  a      creating the cluster failed; its remains were moved aside: the claim to create the cluster was lost -> end the agent [BOO-8]
   32.023  a      the agent ends with exit code 1
> expect b primary
> start agent a
> wait 20s until a replica of b
   32.023  b      another member is creating the cluster [BOO-4 BOO-7 BOO-14]
   32.034  a      the data directory is empty: copies b -> copy b [BOO-5]
   32.035  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   32.036  c      the data directory is empty: copies b -> copy b [BOO-5]
   32.045  a      clone is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   32.049  c      clone is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   34.034  a      has copied b
   34.034  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   34.036  c      has copied b
   34.036  c      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
   34.045  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   34.047  c      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   34.084  a      follows the leader b [OWN-7 FOL-12]
   34.086  c      follows the leader b [OWN-7 FOL-12]
   34.484  a      PostgreSQL accepts connections as standby
   34.486  c      PostgreSQL accepts connections as standby
