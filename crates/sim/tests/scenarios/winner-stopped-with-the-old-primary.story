    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- StopMachine(n1)
   20  n1  accepts no writes
   20  -   -- Trouble(n2, PromoteDiesLate)
   20  -   -- Trouble(n3, PromoteDiesLate)
   49  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
   49  n3  holds the leader key
   49  n2  decides Acquire [UNL-3, RACE-10, DCS-1]
   49  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   49  n3  promotes PostgreSQL
   49  n3  starts as standby
   49  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   49  n3  promotes PostgreSQL
   49  n3  starts as standby
   49  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   49  n3  promotes PostgreSQL
   50  n3  starts as standby
   50  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   50  n3  promotes PostgreSQL
   50  n3  starts as standby
   50  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   50  n3  promotes PostgreSQL
   50  n3  starts as standby
   50  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   50  n3  promotes PostgreSQL
   51  n3  accepts writes on timeline 7
   90  n1  decides Demote (Offline) [DCSF-6, TIM-4]
   90  n1  starts as standby
   91  -   -- mended
  end  whole, and it stays so
