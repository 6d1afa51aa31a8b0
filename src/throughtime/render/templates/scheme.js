// Dark and light: the page by its style, the figures by exchanging their inks. Fills keep their colours: they are data.
// Maps of magnitudes turn round, so that what is much stands out from either paper.
const button = document.getElementById("scheme")
let dark = false
const onLight = new Map()
function turned(palette, colors) {
  const shades = palette.slice(-256), specials = palette.slice(0, -256)
  return [...specials.map(color => colors[color] ?? color), ...shades.map((_, i) => shades[Math.round(229 * (1 - i / 255))])]
}
function paint(models, colors) {
  for (const model of models) {
    const changed = {}, turns = model.tags?.includes("magnitude")
    if (turns && model.palette) {
      if (!onLight.has(model)) onLight.set(model, model.palette)
      changed.palette = dark ? turned(onLight.get(model), colors) : onLight.get(model)
    }
    for (const name in model.properties ?? {}) {
      if (!name.endsWith("color") || name == "fill_color" && !turns || name == "hatch_color") continue
      const value = model[name], color = value?.value ?? value
      if (typeof color != "string" || !(color in colors)) continue
      changed[name] = value?.value ? {...value, value: colors[color]} : colors[color]
    }
    if (Object.keys(changed).length > 0) model.setv(changed, {sync: false})  // a live page keeps it to itself
  }
}
function show(wanted) {
  document.documentElement.dataset.scheme = wanted ? "dark" : "light"
  button.textContent = wanted ? "Light" : "Dark"
  button.setAttribute("aria-pressed", String(wanted))
  if (wanted == dark) return
  dark = wanted
  for (const each of Bokeh.documents) paint(each.all_models, inks())
}
function inks() {
  return Object.fromEntries(LIGHT.map((color, i) => dark ? [color, DARK[i]] : [DARK[i], color]))
}
function whenDrawn(act) {
  const isDrawn = window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents.every(each => each.is_idle)
  isDrawn ? act() : setTimeout(() => whenDrawn(act), 60)
}
button.addEventListener("click", () => show(!dark))
whenDrawn(() => show(window.matchMedia("(prefers-color-scheme: dark)").matches))
let before = false
window.addEventListener("beforeprint", () => { before = dark; show(false) })
window.addEventListener("afterprint", () => show(before))
