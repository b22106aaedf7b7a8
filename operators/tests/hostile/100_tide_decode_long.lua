local s=("a"):rep(1e6) while true do tide.hex.decode(s) tide.base64.decode(s) end
