if (value < 0) return words[Math.floor(-value / width)] ?? ""
const share = value / top
const part = own?.active ? high : 1
if (kind == "linear") return (low + share * (high - low)).toFixed(digits)
const decades = Math.log10(high) - Math.log10(low)
const side = kind == "log10" ? share : Math.abs(2 * share - 1)
const size = Math.pow(10, Math.log10(low) + side * decades)
return (kind != "log10" && share < 0.5 ? "−" : "") + (size / part).toExponential(2)
