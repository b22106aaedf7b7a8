local t=table.create(9e5,1) for i=1,1e6 do table.foreach(t,rawlen and type) table.foreachi(t,type) table.maxn(t) end return "through"
