local a={} for i=1,1000 do a[i]="x" end return #string.pack(("c60000"):rep(1000),table.unpack(a))
