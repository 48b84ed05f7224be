    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- Trouble(n1, Unmounted)
   20  n1  accepts no writes
   20  n1  decides Release [DIR-2]
   20  n1  released the leader key
   20  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
   20  n3  holds the leader key
   20  n2  decides Acquire [UNL-3, RACE-10, DCS-1]
   20  n1  decides Clone [BOO-5]
   20  n3  decides Promote [PRO-6, PRO-7, PRO-10]
   20  n3  promotes PostgreSQL
   20  n3  accepts writes on timeline 2
   22  n1  cloned
   22  n1  starts as standby
  111  -   -- mended
  111  n1  decides Rewind [RWD-5, RWD-9]
  115  n1  rewound
  115  n1  starts as standby
  end  whole, and it stays so
