local t={1,2,3} for k,v in t do t[k+3]=v t["k"..k]=v end return #t
