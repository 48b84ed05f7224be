# A switchover to a member that cannot take over is refused before anything is stopped, and the request is cleared.

> running a b c
> kill node b
> switchover a b
> wait 5s until store failover {}
    0.011  a      asks the other members whether one of them could take over -> ask b [FP-3]
    2.011  a      clears the request to move the leadership: no member that it allows can take over -> clear the request [MAN-L4 MAN-L5 MAN-L6 MAN-L8 MAN-L9]
    2.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> expect a primary
> switchover a nobody-here
> wait 15s until store failover {}
    2.022  a      clears the request to move the leadership: no member that it allows can take over -> clear the request [MAN-L4 MAN-L5 MAN-L6 MAN-L8 MAN-L9]
    2.022  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> expect a primary
> switchover c a
> wait 15s until store failover {}
    2.033  a      clears the request to move the leadership: it names another member as the leader -> clear the request [MAN-L4 MAN-L5 MAN-L6 MAN-L8 MAN-L9]
    2.033  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> expect a primary
