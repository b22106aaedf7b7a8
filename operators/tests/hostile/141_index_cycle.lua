local a,b={},{} setmetatable(a,{__index=b}) setmetatable(b,{__index=a}) local n=0 while true do pcall(function() return a.x end) n=n+1 end
