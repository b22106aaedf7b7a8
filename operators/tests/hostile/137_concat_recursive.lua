local m={} m.__concat=function(a,b) return a..b end local a=setmetatable({},m) return tostring(pcall(function() return a..a end))
