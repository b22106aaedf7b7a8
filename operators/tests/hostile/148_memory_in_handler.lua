local function grow() local t={} while true do t[#t+1]=("x"):rep(1e5)..#t end end return tostring(xpcall(grow,function() return select(2,pcall(grow)) end))
