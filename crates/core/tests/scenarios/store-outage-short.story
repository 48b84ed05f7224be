# The store is away for less than what is left of the lease. "No answer" is not "no": nothing happens.
# (IN-D11, DCSF-6, DCSF-9)

> running a b c
> store down
> tick 15s
    5.000  a      the store does not answer (no answer), but the leader lease has not run out [TIM-5 DCSF-6]
    5.000  b      the store does not answer (no answer); a replica keeps running [DCSF-3]
    5.000  c      the store does not answer (no answer); a replica keeps running [DCSF-3]
> expect a primary
> store up
> tick 30s
   15.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   15.012  b      follows the leader a [OWN-7 FOL-12]
   15.013  c      follows the leader a [OWN-7 FOL-12]
> expect a primary
> expect a timeline 1
> expect b replica of a
