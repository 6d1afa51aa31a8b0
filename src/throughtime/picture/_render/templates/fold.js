// Figures of a fold are drawn when it opens; of figures that share a place one is seen.
const drawn = new Set()
function drawFold(name) {
  if (drawn.has(name) || !(name in DRAWINGS)) return
  drawn.add(name)
  const before = new Set(Bokeh.documents)
  DRAWINGS[name]()
  whenAdded(before.size, () => Bokeh.documents.filter(each => !before.has(each)).forEach(each => {
    fit(each.all_models, document.getElementById(name) ?? document)
  }))
}
// On a dark page a document gets its inks once it has its models, before its figures are drawn: later takes twice as long.
Bokeh.documents.push = (...made) => {
  queueMicrotask(() => dark && made.forEach(each => paint(each.all_models, inks())))
  return Array.prototype.push.apply(Bokeh.documents, made)
}
function whenAdded(count, act) {
  Bokeh.documents.length > count ? whenDrawn(act) : setTimeout(() => whenAdded(count, act), 30)
}
drawFold("top")
for (const fold of document.querySelectorAll("details.fold")) {
  if (fold.open) drawFold(fold.id)
  fold.addEventListener("toggle", () => fold.open && drawFold(fold.id))
}
for (const choices of document.querySelectorAll(".choices")) {
  choices.addEventListener("change", event => {
    for (const figure of choices.querySelectorAll("figure")) figure.parentElement.hidden = figure.id != event.target.value
  })
}
function unfold() {
  for (let node = document.getElementById(location.hash.slice(1)); node; node = node.parentElement)
    if (node.tagName == "DETAILS") node.open = true
}
window.addEventListener("hashchange", unfold)
unfold()
// A number or an interval stays on one line: a table wider than the page scrolls.
for (const cell of document.querySelectorAll("td, thead th")) cell.classList.add(cell.textContent.length > 34 ? "long" : /\[|^.{0,20}$/.test(cell.textContent) ? "short" : "words")
