local n=0 while true do n=n+1 tide.regex.test("x","[a-z]{60}"..n) end
