local n=0 while true do n=n+1 pcall(tide.regex.test,"x","((((a{"..n.."}){99}){99}){99}){99}") end
