    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- Trouble(n1, DiskFull)
   30  n1  accepts no writes
   30  n1  starts as primary
   30  n1  decides Release [REC-12]
   30  n1  released the leader key
   30  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
   30  n3  holds the leader key
   30  n2  decides Acquire [UNL-3, RACE-10, DCS-1]
   30  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   30  n3  promotes PostgreSQL
   31  n3  accepts writes on timeline 2
   41  n1  starts as standby
  141  -   -- mended
  142  n1  starts as standby
  end  whole, and it stays so
