local t={} while true do t[#t+1]=tide.hex.decode(("ab"):rep(2e5)) t[#t+1]=tide.regex.all(("a"):rep(5e4),"a") end
