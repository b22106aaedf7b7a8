local n=0 for i=1,1000 do setmetatable({},{__gc=function() leak="secret" end,__mode="kv",__close=function() end}) n=n+1 end return tostring(leak)..n
