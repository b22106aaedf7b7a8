local n=0 while true do n=n+1 pcall(tide.regex.test,"x","(?ui)\\w\\W\\d\\s[^\\w]"..n) end
