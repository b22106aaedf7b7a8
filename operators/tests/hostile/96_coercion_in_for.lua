local ok,e=pcall(function() for i="1","9" do end end) return tostring(e)
