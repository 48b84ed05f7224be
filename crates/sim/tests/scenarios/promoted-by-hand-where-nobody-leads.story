    4  n3  cloned
    4  n3  starts as standby
    5  -   -- Trouble(n3, ReceiverStuck)
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- Switchover(Some(n2))
   20  n1  decides Demote (Graceful) [MAN-L7, DEM-3]
   20  n1  accepts no writes
   21  n1  released the leader key
   21  n2  decides Acquire [MAN-N1]
   21  n1  released the leader key
   21  n2  holds the leader key
   21  n2  decides Promote [PRO-6, PRO-7, PRO-10]
   21  n2  promotes PostgreSQL
   21  n2  accepts writes on timeline 2
   21  n1  starts as standby
   60  -   -- Switchover(Some(n1))
   60  n2  decides Demote (Graceful) [MAN-L7, DEM-3]
   60  n2  accepts no writes
   61  n2  released the leader key
   61  n1  decides Acquire [MAN-N1]
   61  n1  holds the leader key
   61  n1  decides Promote [PRO-6, PRO-7, PRO-10]
   61  n1  promotes PostgreSQL
   61  n1  accepts writes on timeline 3
   61  n2  starts as standby
  100  -   -- Crash(n1)
  100  n1  accepts no writes
  100  -   -- Crash(n2)
  150  -   -- PromoteByHand(n3)
  150  n3  accepts writes on timeline 3
  159  n3  decides Demote (ImmediateNoLock) [HLT-5, INV-S23]
  159  n3  accepts no writes
  162  n3  starts as standby
  162  n3  decides Acquire [UNL-3, RACE-10, DCS-1]
  162  n3  holds the leader key
  162  n3  decides Promote [PRO-6, PRO-7, PRO-10]
  162  n3  promotes PostgreSQL
  162  n3  accepts writes on timeline 4
  251  n2  decides Rewind [RWD-5, RWD-9]
  251  n1  decides Rewind [RWD-5, RWD-9]
  252  n1  rewound
  252  n1  starts as standby
  254  n2  rewound
  254  n2  starts as standby
  406  -   -- mended
  end  whole, and it stays so
