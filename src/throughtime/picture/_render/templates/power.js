const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹", whole = Math.round(tick)
if (Math.abs(tick - whole) > 1e-6) return ""
return "10" + String(whole).replace("-", "⁻").replace(/[0-9]/g, digit => digits[digit])
