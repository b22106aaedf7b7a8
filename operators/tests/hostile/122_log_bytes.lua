tide.log("\0\27[2J\xff\xfe\r\n") return "logged"
