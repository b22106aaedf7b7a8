local s="x" return tostring(pcall(function() return s:nothing() end))..tostring(pcall(function() return (1):rep(2) end))..tostring(pcall(function() return null:rep(2) end))
