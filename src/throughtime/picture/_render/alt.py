"""A plot in words, for readers who cannot see it."""

from throughtime.picture import Image, Picture
from throughtime.picture._render.keys import keys


def alt(picture: Picture) -> str:
    """Describe a plot: its titles, panels and axes, the range of its colours, and the counts in its legend.

    >>> from throughtime import plots, testing
    >>> alt(plots.heatmap(testing.decaying(), "hidden"))[:31]
    'hₜ · rnn · 1 sample. timestep a'
    """
    first = picture.panels[0]
    names = [panel.title for panel in picture.panels if panel.title]
    parts = [
        picture.title,
        picture.subtitle,
        f"{first.x.label or 'columns'} against {first.y.label or 'rows'}",
    ]
    parts += [f"panels: {', '.join(names)}"] if len(names) > 1 else []
    images = picture.marks(Image)
    if images:
        ticks = images[0].colors.scale.ticks()
        parts.append(f"{images[0].colors.label} from {ticks[0][1]} to {ticks[-1][1]}" if ticks else "")
    parts += [key.words for key in keys(picture)]
    return ". ".join(part for part in parts if part) + "."
