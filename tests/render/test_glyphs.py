"""Letters that the theme's font lacks: another font draws them, or their names stand in their place."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from throughtime.picture import Axis, Line, Panel, Picture, Slider
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render import glyphs
from throughtime.picture._render.glyphs import drawable, named, texts
from throughtime.picture._render.matplotlib import encoded

SMILE, HAN = "\N{SLIGHTLY SMILING FACE}", "\N{CJK UNIFIED IDEOGRAPH-4E2D}"


def titled(title: str) -> Picture:
    line = Line(np.arange(3.0), np.zeros(3), label=title)
    return Picture((Panel((line,), title=title, x=Axis(title, ticks=((0.0, title),))),), title=title)


@pytest.fixture
def smiling(tmp_path):
    """A font of this machine that has one letter, a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "smile"])
    made.setupCharacterMap({ord(SMILE): "smile"})
    made.setupGlyf({".notdef": square, "smile": square})
    made.setupHorizontalMetrics({".notdef": (1000, 0), "smile": (1000, 0)})
    made.setupHorizontalHeader(ascent=1000, descent=-100)
    made.setupNameTable({"familyName": "Smiling", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    path = tmp_path / "smiling.ttf"
    made.save(path)
    before = list(fontManager.ttflist)
    fontManager.addfont(path)
    glyphs._font_with.cache_clear()
    yield
    fontManager.ttflist[:] = before
    glyphs._font_with.cache_clear()


def test_a_font_that_has_the_letter_draws_it(smiling):
    picture = titled(f"run {SMILE}")
    drawn, fonts = drawable(picture, Theme())
    assert drawn is picture
    assert fonts == ["DejaVu Sans", "Smiling"]
    assert encoded(picture, Theme()) != encoded(titled("run [slightly smiling face]"), Theme())


def test_letters_of_the_font_stay_and_need_no_other():
    picture = titled("dL/dhₜ · größe ½ · ‖x‖")
    assert drawable(picture, Theme()) == (picture, ["DejaVu Sans"])


def test_letters_that_no_font_has_become_their_names(monkeypatch):
    monkeypatch.setattr(glyphs, "_font_with", lambda letter: "")
    drawn, fonts = drawable(titled(f"a{SMILE}{SMILE} {HAN}"), Theme())
    named = "a[slightly smiling face ×2] [U+4E2D]"
    panel = drawn.panels[0]
    assert (drawn.title, panel.title, panel.x.label, panel.x.ticks, panel.marks[0].label) == (
        named,
        named,
        named,
        ((0.0, named),),
        named,
    )
    assert fonts == ["DejaVu Sans"]
    encoded(drawn, Theme())  # a warning of a missing letter would be an error here


def test_marks_that_modify_a_letter_need_no_name():
    mark = "\N{VARIATION SELECTOR-16}"
    assert named(f"a{mark}b", {mark}) == "ab"


def test_every_text_of_a_plot_is_listed():
    picture = Picture(
        titled("one").panels, note="two", sliders=(Slider("step", ("three",)),), subtitle="four"
    )
    assert {"one", "two", "three", "four", "step"} <= set(texts(picture))


def test_settings_of_matplotlib_stay():
    before = mpl.rcParams.copy()
    encoded(titled(SMILE), Theme())
    assert mpl.rcParams == before
