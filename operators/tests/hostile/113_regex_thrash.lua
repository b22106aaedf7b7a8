local s={} for i=1,16000 do s[i]=if i*7919%13<6 then "a" else "b" end s=table.concat(s) while true do tide.regex.test(s,"[ab]*a[ab]{40}c") end
