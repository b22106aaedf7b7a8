local ok,e=pcall(function() local c=coroutine.wrap(function() while true do end end) c() coroutine.close(c) end) return tostring(ok)
