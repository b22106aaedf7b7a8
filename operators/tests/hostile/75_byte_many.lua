local s=("x"):rep(1e6) local n=0 while true do n=n+select("#",string.byte(s,1,7000)) end
