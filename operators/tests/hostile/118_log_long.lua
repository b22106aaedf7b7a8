local s=("x"):rep(1e6) while true do tide.log(s,s,s) end
