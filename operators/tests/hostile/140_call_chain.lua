local t=type for i=1,1e4 do t=setmetatable({},{__call=t}) end return tostring(pcall(t,1))
