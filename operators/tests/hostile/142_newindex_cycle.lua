local a,b={},{} setmetatable(a,{__newindex=b}) setmetatable(b,{__newindex=a}) return tostring(pcall(function() a.x=1 end))
