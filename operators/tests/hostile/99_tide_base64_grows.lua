local s=("x"):rep(1e5) while true do s=tide.base64.encode(s) end
