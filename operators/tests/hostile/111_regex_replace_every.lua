return #tide.regex.replace(("x"):rep(6e4),"x",("y"):rep(6e4))
