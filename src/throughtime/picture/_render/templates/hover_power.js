if (value >= 1e9) return "not finite"
return value <= -1e9 ? "0" : Math.pow(10, value).toExponential(2)
