    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- PromoteByHand(n2)
   20  n2  accepts writes on timeline 2
   21  -   -- mended
   28  n2  decides Demote (ImmediateNoLock) [SPL-1, OWN-4, OWN-5, FOL-3, PAU-7]
   28  n2  accepts no writes
   28  n2  decides Rewind [RWD-5, RWD-9]
   29  n2  rewound
   29  n2  starts as standby
  end  whole, and it stays so
