    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- Trouble(n2, PromoteSlow)
   20  -   -- Trouble(n3, PromoteSlow)
   30  -   -- Crash(n1)
   30  n1  accepts no writes
   59  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
   59  n2  decides Acquire [UNL-3, RACE-10, DCS-1]
   59  n3  holds the leader key
   59  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   59  n3  promotes PostgreSQL
   62  -   -- Partition(n2, Store)
   62  -   -- Partition(n3, Store)
   83  n3  decides Demote (Offline) [DCSF-5, TIM-4, QRK-1]
   83  n3  starts as standby
  122  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
  122  n3  holds the leader key
  122  n2  decides Acquire [UNL-3, RACE-10, DCS-1]
  122  n3  decides Promote [PRO-6, PRO-7, PRO-10]
  122  n3  promotes PostgreSQL
  122  n3  accepts writes on timeline 2
  130  n1  decides Rewind [RWD-5, RWD-9]
  131  -   -- mended
  133  n1  rewound
  133  n1  starts as standby
  end  whole, and it stays so
