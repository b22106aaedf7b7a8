while true do tide.regex.all(("A"):rep(6e4),".*[^A-Z]|[A-Z]") end
