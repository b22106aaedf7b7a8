local t={} for i=1,2e5 do t[i]=i end return t
