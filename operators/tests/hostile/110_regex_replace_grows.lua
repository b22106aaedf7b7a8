return #tide.regex.replace(("x"):rep(6e4),"^.*$",("$0"):rep(4e5))
