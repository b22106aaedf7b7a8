local t={} for i=1,3000 do t["f"..i]=i end return t
