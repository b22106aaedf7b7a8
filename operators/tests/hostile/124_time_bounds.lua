local n=0 for _,i in {0/0,1/0,-1/0,1e300,-1e300,2^63,"1",{},("9"):rep(1e5)} do n=n+(pcall(tide.time.format,i) and 1 or 0)+(pcall(tide.time.parse,i) and 1 or 0) end return n
