while true do ("x"):rep(1e5):gsub(".",type) end
