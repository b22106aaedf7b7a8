local b=buffer.create(1e6) while true do buffer.copy(b,1,b,0,9e5) buffer.fill(b,0,1) end
