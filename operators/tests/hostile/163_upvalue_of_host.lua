local r={} for _,f in {tide.hex.encode,string.rep,tide.regex.match,table.sort} do for i=1,3 do local ok,e=pcall(f) r[#r+1]=tostring(ok) end end return table.concat(r)
