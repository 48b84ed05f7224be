# A member comes with the data of another cluster: it ends, and touches nothing (DIR-6).
# (DIR-6, CYC-14)

> running a b c
> foreign c
> kill node c
> start node c
> wait 20s until c agent ended
    0.013  c      the data directory belongs to another cluster (system identifier 1111111111111111111, the cluster has 7700000001011000097) -> end the agent [DIR-6]
    0.013  c      the agent ends with exit code 1
> expect c down
> expect a primary
