local n=0 for _,l in {0,1,2,3,9,200,-1,1e9,-1e9} do local ok,e=pcall(error,"m",l) n=n+#tostring(e) end return "through"
