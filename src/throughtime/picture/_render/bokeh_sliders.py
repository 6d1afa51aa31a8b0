"""Sliders of a page, which select the frame of its figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import CustomJS, CustomJSTickFormatter
from bokeh.models.widgets import Slider

from throughtime.picture import Picture
from throughtime.picture._render import own_scale
from throughtime.picture._render.bokeh_marks import Frames
from throughtime.picture._render.bokeh_text import template_text


def sliders(picture: Picture, frames: Frames, heading: Any = None) -> list[Any]:
    """Make the sliders that select the frame, and its title if frames have titles."""
    places = map(int, np.unravel_index(picture.shown, [len(each.words) for each in picture.sliders] or [1]))
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
        for slider, place in zip(picture.sliders, places, strict=False)
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
        slider.js_on_change("value", CustomJS(args=arguments, code=template_text("slide.js")))
        own_scale.follow(slider, "value", frames)
    return made
