"""Sliders of a page, which select the frame of its figures."""

from __future__ import annotations

from typing import Any

from bokeh.models import CustomJS, CustomJSTickFormatter
from bokeh.models.widgets import Slider

from throughtime.picture import Picture
from throughtime.render import own_scale
from throughtime.render.bokeh_marks import Frames

_SLIDE = """
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
"""


def sliders(picture: Picture, frames: Frames, heading: Any = None) -> list[Any]:
    """Make the sliders that select the frame, and its title if frames have titles."""
    places = _unravelled(picture)
    made = [
        Slider(
            start=0,
            end=len(slider.words) - 1,
            value=place,
            step=1,
            title=slider.name,
            format=CustomJSTickFormatter(args={"words": list(slider.words)}, code="return words[tick]"),
            name=slider.name,
            tooltips=False,  # Bokeh sets them as HTML; the title has the same word
            sizing_mode="stretch_width",
        )
        for slider, place in zip(picture.sliders, places, strict=True)
        if len(slider.words) > 1
    ]
    several = [slider for slider in picture.sliders if len(slider.words) > 1]
    arguments = {
        "sliders": made,
        "sizes": [len(slider.words) for slider in several],
        "stores": frames.stores,
        "shownIn": frames.shown,
        "whole": {"y": True},
        "titles": list(picture.titles),
        "heading": heading if picture.titles else None,
    }
    for slider in made:
        slider.js_on_change("value", CustomJS(args=arguments, code=_SLIDE))
        own_scale.follow(slider, "value", frames)
    return made


def _unravelled(picture: Picture) -> list[int]:
    """Return the place of each slider for the frame shown."""
    number, places = picture.shown, []
    for slider in reversed(picture.sliders):
        number, place = divmod(number, len(slider.words))
        places.append(place)
    return places[::-1]
