    0  n1  decides Bootstrap [BOO-1, BOO-3]
    0  -   -- Crash(n1)
   30  n3  decides Bootstrap [BOO-1, BOO-3]
   30  n2  decides Bootstrap [BOO-1, BOO-3]
   32  n3  initdbdone
   32  n3  starts as primary
   32  n3  accepts writes on timeline 1
   32  n3  holds the leader key
   32  n2  decides Clone [BOO-5]
   38  n2  cloned
   38  n2  starts as standby
  121  -   -- mended
  end  whole, and it stays so
