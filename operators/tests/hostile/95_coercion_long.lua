local s=("0"):rep(1e6) local n=0 while true do n=n+(s+0) end
