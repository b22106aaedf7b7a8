string,table,tide,pcall,type=nil,nil,nil,nil,nil return "shadowed"
