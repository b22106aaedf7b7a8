local t=table.create(9e5,1) while true do table.insert(t,1,2) table.remove(t,1) end
