local s=string.pack("s4",("x"):rep(1e6)) while true do string.unpack("s4",s) end
