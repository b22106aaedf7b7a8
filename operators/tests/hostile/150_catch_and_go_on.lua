local n=0 local function f() n=n+1 local ok=pcall(f) return pcall(f) end f() return "ESCAPED "..n
