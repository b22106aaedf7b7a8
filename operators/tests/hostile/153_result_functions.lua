return {type,tide.log,buffer.create(8),null,{tide}}
