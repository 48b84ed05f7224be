    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- StaleReads(n2)
   25  -   -- Switchover(Some(n3))
   25  n1  decides Demote (Graceful) [MAN-L7, DEM-3]
   25  n1  accepts no writes
   25  n1  released the leader key
   25  n3  decides Acquire [MAN-N1]
   25  n3  holds the leader key
   25  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   25  n3  promotes PostgreSQL
   25  n3  accepts writes on timeline 2
   25  n1  starts as standby
   81  -   -- mended
  end  whole, and it stays so
