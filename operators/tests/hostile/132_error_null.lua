local n=0 for _,e in {null,0/0,true,function() end,buffer.create(1),{{}}} do local ok,v=pcall(error,e) n=n+(rawequal(v,e) and 1 or 0) end error(null)
