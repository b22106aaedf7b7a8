local t=table.create(7900,"x") while true do tide.log(table.unpack(t)) end
