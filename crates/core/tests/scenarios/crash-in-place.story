# The primary's PostgreSQL crashes. Its agent still holds the lease: it starts the server again, on the same timeline.
# (REC-3, CYC-15, WAK-3, BEY-1, ASY-8)

> running a b c
> crash postgres a
    0.000  a      PostgreSQL is gone
> wait 5s until a primary
    0.000  a      PostgreSQL ended unexpectedly while this member holds the leader lease: starts it again -> start as primary [REC-1 REC-3]
    0.011  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
    0.050  a      PostgreSQL is starting [STA-6 STA-7]
    0.450  a      PostgreSQL accepts connections as primary
> expect a timeline 1
> wait 15s until b replica of a
> expect c replica of a
