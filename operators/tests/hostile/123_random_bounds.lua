local n=0 for _,i in {0/0,1/0,-1/0,-1,2^53,2^60,"1",{}} do n=n+(pcall(tide.random,i) and 1 or 0)+(pcall(tide.random,0,i) and 1 or 0)+(pcall(tide.random,-2^53,i) and 1 or 0) end return n
