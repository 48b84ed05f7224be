# Three empty machines start together: one creates the cluster, the others copy it.
# (BOO-1, BOO-3, BOO-4, BOO-5, BOO-11, CYC-6, CYC-11, CYC-13; INV-S10)

> members a b c
> wait 20s until a primary
    0.011  a      the cluster was never initialised: races to create it -> create the cluster [BOO-1 BOO-3]
    0.012  b      another member is creating the cluster [BOO-4 BOO-7 BOO-14]
    0.013  c      another member is creating the cluster [BOO-4 BOO-7 BOO-14]
    0.022  a      bootstrap is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    1.011  a      initdb is done
    1.411  a      PostgreSQL accepts connections as primary
    2.011  store  the leader key is a's
> wait 20s until b replica of a
    2.011  a      another member is creating the cluster [BOO-4 BOO-7 BOO-14]
    2.022  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
    2.023  b      the data directory is empty: copies a -> copy a [BOO-5]
    2.024  c      the data directory is empty: copies a -> copy a [BOO-5]
    2.035  b      clone is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    2.037  c      clone is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    4.023  b      has copied a
    4.023  b      starts PostgreSQL as a replica of a -> start as standby of a [REC-11 NTF-4]
    4.024  c      has copied a
    4.024  c      starts PostgreSQL as a replica of a -> start as standby of a [REC-11 NTF-4]
    4.035  b      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    4.036  c      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    4.073  b      follows the leader a [OWN-7 FOL-12]
    4.074  c      follows the leader a [OWN-7 FOL-12]
    4.473  b      PostgreSQL accepts connections as standby
    4.474  c      PostgreSQL accepts connections as standby
> wait 20s until c replica of a
> tick 30s
> expect a timeline 1
> expect leader a
