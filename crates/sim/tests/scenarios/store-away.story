    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- StoreAway
   41  n1  decides Demote (Offline) [DCSF-5, TIM-4, QRK-1]
   41  n1  accepts no writes
   41  n1  starts as standby
   80  n1  decides Adopt [DCS-E2, QRK-9, REC-1, OWN-3]
   80  n1  decides Promote [PRO-6, PRO-7, PRO-10]
   80  n1  promotes PostgreSQL
   80  n1  accepts writes on timeline 2
   81  -   -- mended
  end  whole, and it stays so
