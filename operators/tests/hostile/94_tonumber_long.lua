local s=("0"):rep(1e6) while true do tonumber(s) tonumber(s,36) end
