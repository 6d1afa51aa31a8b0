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
    // A figure paints over what it has; a row of pixels at its edge would keep the colour before.
    if (model.type == "Figure") Bokeh.index.find_one(model)?.canvas_view.primary.ctx.clearRect(-1, -1, 9999, 9999)
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
whenDrawn(() => {
  Bokeh.documents.forEach(each => fit(each.all_models, document))
  show(window.matchMedia("(prefers-color-scheme: dark)").matches)
})
// On a narrow page panels are stacked, labels upright, squares smaller, legends narrower, words short.
const lengths = axis => [...axis?.major_label_overrides?.values() ?? []].map(word => 6.2 * String(word).length)
function fit(models, part) {
  const place = part.querySelector(".drawn")
  if (!place) return
  const room = place.clientWidth - 10, side = room - 130
  for (const model of models) {
    if (model.min_width > room) {
      const grid = model.children.at(-1)
      grid.children = grid.children.map(([each], place) => [each, place, 0])
      model.min_width = null
    }
    if (model.frame_width > side) model.setv({frame_width: side, frame_height: side})
    if (model.type == "Figure") {
      const axis = model.left[0], most = Math.floor(room / 28)
      if (room < 500 && most < Math.max(0, ...lengths(axis)) / 6.2)
        axis.major_label_overrides = new Map([...axis.major_label_overrides].map(([at, word]) => [at, word.includes("\n") ? word : short(word, most)]))
      const frame = room - 80 - Math.max(0, ...lengths(model.left[0])) - (model.right.length > 0 ? 75 : 0)
      const needed = lengths(model.below[0]).reduce((sum, each) => sum + each, 0)
      if (needed > frame || collide(model, frame - 40)) model.below[0].major_label_orientation = "vertical"
      const ticker = model.below[0].ticker
      if (frame < 220 && ticker.desired_num_ticks > 4) ticker.desired_num_ticks = 4
      for (const each of model.renderers) if (each.glyph?.type == "Text") shorten(each.data_source, frame)
      const legends = [...model.above, ...model.below].filter(each => each.type == "Legend")
      model.height += legends.reduce((sum, each) => sum + narrow(each, room), 0)
      model.width = Math.min(model.width, room - 50)
      model.frame_align = room > 500
    }
  }
}
const short = (word, most) => word.length > most ? word.slice(0, most - 1) + "…" : word
function collide(model, frame) {
  const words = [...model.below[0].major_label_overrides ?? []].sort(([one], [other]) => one - other)
  const ends = [model.x_range.start, model.x_range.end].map((end, i) => Number.isFinite(end) ? end : words.at(-i)?.[0])
  const spans = words.map(([at, word]) => [frame * (at - ends[0]) / (ends[1] - ends[0]), 3.1 * String(word).length])
  return spans.some(([at, half], i) => i > 0 && at - half < spans[i - 1][0] + spans[i - 1][1])
}
function shorten(source, room) {
  const {y, text} = source.data, row = [...y].filter(each => each == y[0]).length
  const most = Math.max(3, Math.floor(room / row / 5.5))
  if (row > 1 && [...text].some(word => word.length > most))
    source.data = {...source.data, text: [...text].map(word => short(word.replace(/^unit /, ""), most))}
}
function narrow(legend, room) {
  const count = legend.items.length, before = legend.ncols == "auto" ? count : legend.ncols
  const most = Math.floor((room - 130) / 5)
  for (const {label} of legend.items) if (label?.value?.length > most) label.value = short(label.value.replace(/ \d.*? exactly 0,/, ""), most)
  const longest = Math.max(...legend.items.map(each => String(each.label?.value ?? "").length))
  const columns = Math.min(before, Math.max(1, Math.floor((room - 90) / (6 * longest + 40))))
  if (columns < before) legend.ncols = columns
  return 23 * (Math.ceil(count / columns) - Math.ceil(count / before))  // pixels that it is higher
}
let before = false
window.addEventListener("beforeprint", () => { before = dark; show(false) })
window.addEventListener("afterprint", () => show(before))
