    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- WatchesSilent
   25  -   -- Crash(n1)
   25  n1  accepts no writes
   55  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
   55  n3  holds the leader key
   55  n2  decides Acquire [UNL-3, RACE-10, DCS-1]
   55  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   55  n3  promotes PostgreSQL
   55  n3  accepts writes on timeline 2
   85  n1  decides Rewind [RWD-5, RWD-9]
   86  -   -- mended
   88  n1  rewound
   88  n1  starts as standby
  end  whole, and it stays so
