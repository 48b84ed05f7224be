    0  n1  decides Bootstrap [BOO-1, BOO-3]
    1  n1  initdbdone
    2  n1  starts as primary
    2  n1  accepts writes on timeline 1
    2  n1  holds the leader key
    2  n3  decides Clone [BOO-5]
    2  n2  decides Clone [BOO-5]
    7  n3  cloned
    7  n3  starts as standby
    8  n2  cloned
    8  n2  starts as standby
   30  -   -- StoreElects
   31  -   -- mended
  end  whole, and it stays so
