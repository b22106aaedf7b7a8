local s="x" while true do s=`{s}{s}{s}{s}` end
