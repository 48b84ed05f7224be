# Nothing happens in a healthy cluster: nobody decides anything new, and only positions are written, once a tick (TIM-2,
# MEM-11, CYC-19, STS-2).

> running a b c
> tick 300s
# Each member writes its record once a tick, the leader its status, too:
> expect at most 120 writes
> expect a primary
> expect a timeline 1
> expect b replica of a
> expect c replica of a
