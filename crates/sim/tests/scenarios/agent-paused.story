    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- StopAgent(n1)
   45  n1  accepts no writes
   49  n2  decides Acquire [UNL-3, RACE-10, DCS-1]
   49  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
   49  n3  holds the leader key
   49  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   49  n3  promotes PostgreSQL
   49  n3  accepts writes on timeline 2
   80  n1  decides Rewind [RWD-5, RWD-9]
   81  -   -- mended
   83  n1  rewound
   83  n1  starts as standby
  end  whole, and it stays so
