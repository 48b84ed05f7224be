    5  n2  cloned
    5  n2  starts as standby
   20  -   -- Partition(n1, Rest)
   20  -   -- Partition(n1, Replication)
   81  -   -- mended
  end  whole, and it stays so
