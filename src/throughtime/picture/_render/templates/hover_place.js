const data = source.data, i = special_vars.index
const share = (special_vars[axis] - data[axis][i]) / data["d" + (axis == "x" ? "w" : "h")][i]
const place = Math.min(count - 1, Math.max(0, Math.floor(share * count)))
return labels.length > 0 ? labels[place] : String(place)
