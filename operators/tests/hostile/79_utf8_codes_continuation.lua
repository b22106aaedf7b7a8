local f=utf8.codes("a") local s=("\x80"):rep(1e6) for i=1,1e6 do pcall(f,s,1) end return "through"
