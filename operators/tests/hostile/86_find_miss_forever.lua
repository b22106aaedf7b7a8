local t=table.create(9e5,1) while true do table.find(t,2) end
