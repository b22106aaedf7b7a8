while true do tide.regex.test(("a"):rep(6e4),"(a*)*(a|aa)+(a+a+)+b") end
