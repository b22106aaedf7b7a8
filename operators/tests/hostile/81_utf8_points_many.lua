local s=("e"):rep(1e6) while true do local t={utf8.codepoint(s,1,7000)} utf8.char(table.unpack(t)) end
