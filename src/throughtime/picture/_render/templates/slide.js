let frame = 0
for (let i = 0; i < sliders.length; i++) frame = frame * sizes[i] + sliders[i].value
for (const [store, shown] of stores.map((store, i) => [store, shownIn[i]])) {
    const data = {...shown.data}
    for (const name of Object.keys(store.data)) {
        const all = store.data[name], count = shown.data[name].length
        data[name] = whole[name] ? all[frame] : all.slice(frame * count, (frame + 1) * count)
    }
    shown.codes = null
    shown.data = data
}
if (heading) heading.text = titles[frame]
for (let node = titles.length && Bokeh.index.find_one(sliders[0])?.el; node; node = node.getRootNode().host) {
    const figure = node.closest("figure"), title = figure?.querySelector("h1, h3")
    if (!title) continue
    const words = figure.getAttribute("aria-label").slice(title.textContent.length)
    figure.setAttribute("aria-label", titles[frame] + words)
    title.textContent = titles[frame]
}
