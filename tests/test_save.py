"""Saving a picture: whole files, typed errors, and nothing global touched."""

from __future__ import annotations

import io
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pytest

import throughtime as tt
from throughtime import plots, testing
from throughtime.picture import Axis, Line, Panel, Picture

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "html": b"<!doctype html>"}


@pytest.fixture(scope="module")
def picture():
    return plots.heatmap(testing.bidirectional(samples=2))


@pytest.mark.parametrize("suffix", STARTS)
def test_suffix_says_what_is_written(picture, tmp_path, suffix):
    path = tt.save(picture, tmp_path / "new folder" / f"picture.{suffix}")
    assert path.read_bytes().startswith(STARTS[suffix])
    assert [each.name for each in path.parent.iterdir()] == [path.name], "nothing else is left"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])  # Bokeh numbers its models anew
def test_same_picture_is_the_same_file(picture, tmp_path, suffix):
    first, second = (tt.save(picture, tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert first == second


def test_no_suffix_means_png(picture, tmp_path):
    assert tt.save(picture, str(tmp_path / "flow")).name == "flow.png"


def test_existing_file_is_replaced(picture, tmp_path):
    path = tmp_path / "flow.svg"
    path.write_text("old")
    tt.save(picture, path)
    assert path.read_bytes().startswith(STARTS["svg"])


def test_unknown_suffix_lists_the_known(picture, tmp_path):
    with pytest.raises(tt.PictureError, match=r"\.png, \.svg, \.pdf, \.html"):
        tt.save(picture, tmp_path / "flow.gif")
    assert not list(tmp_path.iterdir())


def test_file_that_cannot_be_written_leaves_nothing(picture, tmp_path, monkeypatch):
    path = tmp_path / "flow.png"
    path.write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(tt.PictureError, match="No space left"):
        tt.save(picture, path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["flow.png"]


def test_folder_in_the_place_of_a_file_is_refused(picture, tmp_path):
    with pytest.raises(tt.PictureError, match="is a folder"):
        tt.save(picture, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(tt.PictureError, match="cannot be created"):
        tt.save(picture, tmp_path / "file" / "flow.png")


@pytest.mark.parametrize("wrong", [None, "flow", 3])
def test_no_picture_is_refused(wrong, tmp_path):
    with pytest.raises(tt.PictureError, match=r"tt\.plots\.heatmap"):
        tt.save(wrong, tmp_path / "flow.png")


def test_settings_of_matplotlib_stay_and_do_not_matter(picture, tmp_path):
    plain = tt.save(picture, tmp_path / "plain.png").read_bytes()
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 20}):
        before = dict(mpl.rcParams)
        assert tt.save(picture, tmp_path / "other.png").read_bytes() == plain
        assert dict(mpl.rcParams) == before


def test_drawing_needs_no_pyplot_and_shows_nothing():
    program = (
        "import sys, throughtime as tt\n"
        "picture = tt.plots.lines(tt.testing.decaying())\n"
        "picture._repr_png_(); picture.to_matplotlib(); picture.to_bokeh()\n"
        "from bokeh.io import curdoc\n"
        "print('matplotlib.pyplot' in sys.modules, len(curdoc().roots))\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["False", "0"]


def test_theme_sets_the_width(picture):
    figure = picture.to_matplotlib(tt.Theme.for_paper(3.35))
    assert figure.get_size_inches()[0] == pytest.approx(3.35)
    assert figure.axes[0].xaxis.label.get_fontsize() == 7.0


def test_a_notebook_shows_a_picture_and_its_interactive_form(picture):
    png, shown = picture._repr_png_()
    pixels = PIL.Image.open(io.BytesIO(png)).size
    assert pixels == pytest.approx((2 * shown["width"], 2 * shown["height"]), abs=1)
    classic, _ = tt.show_features_1D(np.ones((1, 4, 2)))
    assert shown["width"] / picture.width == pytest.approx(classic.dpi, rel=0.01)
    plt.close(classic)
    frame = picture.interactive()._repr_html_()
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert "allow-same-origin" not in frame


def test_pictures_are_values():
    drawn = Picture((Panel((Line(np.arange(2.0), np.arange(2.0)),), x=Axis("time")),))
    with pytest.raises(AttributeError):
        drawn.title = "other"
