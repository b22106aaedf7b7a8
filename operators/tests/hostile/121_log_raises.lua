while true do pcall(tide.log,setmetatable({},{__tostring=function() error(setmetatable({},{__tostring=function() error("again") end})) end})) end
