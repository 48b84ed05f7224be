    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   40  -   -- StopAgent(n2)
   42  -   -- PromoteByHand(n2)
   42  n2  accepts writes on timeline 2
   64  n3  decides Rewind [RWD-5, RWD-9]
   64  n3  rewound
   64  n3  starts as standby
   65  n2  decides Demote (ImmediateNoLock) [SPL-1, OWN-4, OWN-5, FOL-3, PAU-7]
   65  n2  accepts no writes
   65  n2  decides Rewind [RWD-5, RWD-9]
   65  n3  decides Rewind [RWD-5, RWD-9]
   66  -   -- mended
   66  n3  rewound
   66  n3  starts as standby
   68  n2  rewound
   68  n2  starts as standby
  end  whole, and it stays so
