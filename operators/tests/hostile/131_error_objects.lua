local e=setmetatable({},{__tostring=function(s) return s end,__index=function(t,k) return t[k] end,__metatable="secret"}) local n=0 for i=1,200 do pcall(error,e) n=n+1 end error(e)
