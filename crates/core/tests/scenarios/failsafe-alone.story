# A cluster of one has nobody to ask.
> running a
> set failsafe_mode true
> tick 20s
    0.011  a      leads; writes down who has to agree when the store is away -> write failsafe [FS-1 DCS-10]
    0.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> store down
> tick 300s
   25.000  a      the store does not answer (no answer), but the leader lease has not run out [TIM-5 DCSF-6]
   28.600  a      the store does not confirm the leader lease; all other members (0) have agreed to wait for this primary -> go on with the consent of all others [DCSF-4 FS-4 FS-12]
> expect a primary
> store up
> tick 20s
  320.000  store  the leader key is gone
  320.011  a      PostgreSQL is primary, no other member is, and nobody holds the leader key: takes it -> acquire the leader key [HLT-5 QRK-2]
  320.011  store  the leader key is a's
  320.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> expect a timeline 1
