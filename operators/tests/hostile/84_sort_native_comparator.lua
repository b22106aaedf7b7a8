local t={} for i=1,9e4 do t[i]=i end while true do table.sort(t,rawequal) end
