expire()
return answer('swept')
