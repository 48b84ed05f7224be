    4  n3  cloned
    4  n3  starts as standby
    5  n2  cloned
    5  n2  starts as standby
   20  -   -- DeleteKey(leader
   20  n1  decides Acquire [HLT-5, QRK-2]
   20  n1  holds the leader key
   21  -   -- mended
  end  whole, and it stays so
