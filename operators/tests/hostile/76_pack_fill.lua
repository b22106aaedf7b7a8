return #string.pack("c100000000","x")
