local s="xx" while true do s=tide.hex.encode(s) end
