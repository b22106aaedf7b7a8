local b=buffer.create(1e6) while true do buffer.fromstring(buffer.tostring(b)) buffer.readstring(b,0,1e6) buffer.writestring(b,0,("x"):rep(1e6)) end
