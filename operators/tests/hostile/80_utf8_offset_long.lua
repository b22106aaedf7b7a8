local s=("\xC3\xA9"):rep(5e5) while true do utf8.offset(s,4e5) utf8.len(s) end
