local s=("x"):rep(1e6) s=s..s return buffer.len(buffer.fromstring(s))
