    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- Trouble(n1, FsyncStalls)
   61  -   -- mended
  end  whole, and it stays so
