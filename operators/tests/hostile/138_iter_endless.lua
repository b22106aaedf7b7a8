local t=setmetatable({},{__iter=function() return function(_,i) return (i or 0)+1 end end}) local n=0 for i in t do n=n+1 end return n
