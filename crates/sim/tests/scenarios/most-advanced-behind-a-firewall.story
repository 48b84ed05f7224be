    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   15  -   -- Trouble(n2, ReceiverStuck)
   30  -   -- Partition(n3, Rest)
   31  -   -- Crash(n1)
   31  n1  accepts no writes
   61  n2  decides Acquire [UNL-3, RACE-10, DCS-1]
   61  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
   61  n2  holds the leader key
   61  n2  decides Promote [PRO-6, PRO-7, PRO-10]
   61  n2  promotes PostgreSQL
   61  n2  accepts writes on timeline 2
   61  n3  decides Rewind [RWD-5, RWD-9]
   63  n3  rewound
   63  n3  starts as standby
  152  -   -- mended
  152  n1  decides Rewind [RWD-5, RWD-9]
  153  n1  rewound
  153  n1  starts as standby
  end  whole, and it stays so
