local t=table.create(7900,1) while true do table.pack(table.unpack(t)) end
