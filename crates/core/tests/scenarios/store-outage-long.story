# The store is away for longer than the lease: the primary stops before anybody else could be given it, and goes on
# read-only. When the store is back, the members elect.
# (CYC-1, CYC-22, TIM-3, TIM-5, DCSF-5, DCSF-8, DCSF-9)

> running a b c
> store down
> wait 30s until nobody primary
    5.000  a      the store does not answer (no answer), but the leader lease has not run out [TIM-5 DCSF-6]
    5.000  b      the store does not answer (no answer); a replica keeps running [DCSF-3]
    5.000  c      the store does not answer (no answer); a replica keeps running [DCSF-3]
   21.231  a      the store does not answer (no answer) and the leader lease is running out -> stop in order, then start read-only [DCSF-5 TIM-4 QRK-1]
   21.531  a      PostgreSQL has stopped
> tick 60s
   21.531  a      the store does not answer (no answer); a replica keeps running [DCSF-3]
   21.931  a      PostgreSQL accepts connections as standby
> expect nobody primary
> expect a running
> store up
> wait 40s until leader a
> wait 10s until a primary
   81.531  store  the leader key is gone
   81.542  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
   81.543  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   81.544  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   81.547  a      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   81.547  store  the leader key is a's
   81.547  a      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   81.547  a      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   81.548  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   81.549  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   81.559  b      follows the leader a [OWN-7 FOL-12]
   81.560  c      follows the leader a [OWN-7 FOL-12]
   81.757  a      PostgreSQL is primary on timeline 2
> wait 30s until b replica of a
> wait 30s until c replica of a
