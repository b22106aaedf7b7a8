local s=("x"):rep(1e6) while true do for _,f in tide.crc do f(s) end end
