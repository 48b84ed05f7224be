    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   10  -   -- Partition(n1, Replication)
   30  -   -- Crash(n1)
   30  n1  accepts no writes
   30  -   -- Trouble(n1, RewindHalfWay)
   59  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
   59  n2  decides Acquire [UNL-3, RACE-10, DCS-1]
   59  n3  holds the leader key
   59  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   59  n3  promotes PostgreSQL
   59  n3  accepts writes on timeline 2
   90  n1  decides Rewind [RWD-5, RWD-9]
  151  -   -- mended
  end  whole, and it stays so
