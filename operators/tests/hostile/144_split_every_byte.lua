local n=0 while true do n=n+#("x"):rep(2e5):split("") end
