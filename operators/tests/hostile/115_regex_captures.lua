local p=("(a"):rep(90)..(")?"):rep(90) while true do tide.regex.match(("a"):rep(4000),p) end
