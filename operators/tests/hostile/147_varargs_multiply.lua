local t=table.create(7900,1) local function f(n,...) if n==0 then return select("#",...) end return f(n-1,...,table.unpack(t)) end return f(150,table.unpack(t))
