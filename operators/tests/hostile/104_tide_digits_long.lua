local s=("\x12"):rep(1e6) return #tide.read.digitsbe(s,0,1e6)
