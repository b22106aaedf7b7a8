return tostring(xpcall(error,function(e) error(e) end,("x"):rep(1e5)))
