local b=buffer.create(1e6) while true do tide.read.text(b,0,1e6) end
