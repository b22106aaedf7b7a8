local t=table.create(4e5,1) while true do local u=table.clone(t) table.clear(u) end
