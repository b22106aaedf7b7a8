return ("\xff\xfe\0"):rep(2e4)
