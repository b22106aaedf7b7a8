local p=("("):rep(500).."a"..(")*"):rep(500) return tostring(pcall(tide.regex.test,("a"):rep(6e4),p))
