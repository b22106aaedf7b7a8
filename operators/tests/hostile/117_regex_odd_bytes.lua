local t={} for i=0,255 do t[i+1]=tostring(pcall(tide.regex.test,string.char(i),string.char(i))) end return #table.concat(t)
