"""The classic functions draw what they are given, say what they draw, and refuse what they cannot."""

import pickle

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib import colors as mcolors
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from throughtime._errors import FeatureError, ThroughTimeWarning
from throughtime.compat._classic import (
    show_features_0D,
    show_features_1D,
    show_features_2D,
    show_features_hist,
)
from throughtime.picture._drawing.palettes import palette

ALL = (show_features_0D, show_features_1D, show_features_2D, show_features_hist)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def values(*shape, dtype=np.float64):
    """Numbers that may not be written to."""
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    array.flags.writeable = False
    return array


def data_for(function):
    return values(4, 6) if function is show_features_0D else values(4, 20, 6)


def sample_lines(ax):
    return [line for line in ax.lines if str(line.get_label()).startswith("sample")]


def title(fig):
    return fig.get_suptitle()


def labelled(**attributes):
    array = values(2, 5, 3, 2)
    return xr.DataArray(
        array,
        dims=("sample", "time", "unit", "direction"),
        coords={"direction": ["forward", "backward"]},
        name="output_gradient",
        attrs={"long_name": "dL/dh", "layer": "/lstm", "units": "nat", **attributes},
    )


# --- what all have in common -----------------------------------------------------------------------


@pytest.mark.parametrize("function", ALL)
def test_result_is_a_named_tuple_with_a_one_line_repr(function):
    shown = function(data_for(function))
    fig, axes = shown
    assert fig is shown.fig
    assert axes is shown.axes
    assert "\n" not in repr(shown)
    assert "0x" not in repr(shown)


@pytest.mark.parametrize("function", ALL)
def test_figure_belongs_to_pyplot_and_is_not_shown(function, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("shown"))
    fig = function(data_for(function)).fig
    assert plt.figure(fig.number) is fig


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32, np.uint8, np.bool_])
def test_every_real_dtype_is_drawn_and_left_unchanged(function, dtype):
    data = np.abs(data_for(function)).astype(dtype)
    before = data.copy()
    data.flags.writeable = False
    function(data).fig.canvas.draw()
    assert np.array_equal(data, before)


@pytest.mark.parametrize("function", ALL)
def test_bfloat16_arrays_are_drawn(function):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    function(data_for(function).astype(ml_dtypes.bfloat16)).fig.canvas.draw()


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch_tensors_with_a_tape_are_drawn(function, dtype):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(data_for(function), dtype=getattr(torch, dtype)).requires_grad_()
    function(tensor).fig.canvas.draw()
    function([tensor, tensor] if function is show_features_hist else list(tensor)).fig.canvas.draw()


@pytest.mark.parametrize("function", ALL)
def test_nested_lists_are_drawn(function):
    function(data_for(function).tolist()).fig.canvas.draw()


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "empty"),
        (np.zeros((0, 5)), "empty"),
        (np.array([["a", "b"]]), "numbers"),
        (np.array([[object()]]), "numbers"),
        (None, "numbers"),
        (np.ones((3, 4), dtype=complex), "complex"),
        ([[1.0, 2.0], [3.0]], "rectangular"),
    ],
)
def test_data_that_cannot_be_drawn_are_refused_with_a_reason(function, data, says):
    with pytest.raises(FeatureError, match=says):
        function(data)
    assert not plt.get_fignums()


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("wanted", "xy"),
    [((1, 0), (1, 0)), ([0, 1], (0, 1)), (True, (1, 1)), (0, (0, 0)), ("x", (1, 0)), (None, (0, 0))],
)
def test_ticks_are_shown_as_asked(function, wanted, xy):
    shown = function(data_for(function), show_xy_ticks=wanted)
    first = np.atleast_2d(shown.axes)[-1, 0]
    x, y = first.xaxis.get_tick_params(), first.yaxis.get_tick_params()
    assert (x["labelbottom"], y["labelleft"]) == tuple(map(bool, xy))


@pytest.mark.parametrize("function", ALL)
def test_title_is_automatic_none_or_the_callers(function):
    assert title(function(data_for(function)).fig)
    assert title(function(data_for(function), show_title=False).fig) == ""
    assert title(function(data_for(function), show_title="Mine").fig) == "Mine"


@pytest.mark.parametrize("function", ALL)
def test_saved_file_is_whole_in_a_folder_that_is_made(function, tmp_path):
    path = tmp_path / "new" / "picture.png"
    function(data_for(function), savepath=path)
    assert plt.imread(path).ndim == 3
    assert [entry.name for entry in path.parent.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("name", ["file/picture.png", "picture.xyz", "file.d"])
def test_path_that_cannot_be_written_is_refused_before_drawing(function, name, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "file.d").mkdir()
    with pytest.raises(FeatureError, match="savepath"):
        function(data_for(function), savepath=tmp_path / name)
    assert not plt.get_fignums()


def test_failed_save_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_text("old")

    def broken(_, part, **__):
        part.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(FeatureError, match="disk full"):
        show_features_1D(values(20, 6), savepath=path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert not plt.get_fignums()


@pytest.mark.parametrize("function", ALL)
def test_picture_fits_into_a_subfigure(function, tmp_path):
    outer = plt.figure(layout="constrained")
    left, right = outer.subfigures(1, 2)
    shown = function(data_for(function), figure=left, savepath=tmp_path / "both.pdf")
    assert shown.fig is left
    assert left.axes
    assert not right.axes
    assert plt.get_fignums() == [outer.number]
    assert (tmp_path / "both.pdf").exists()


@pytest.mark.parametrize("function", ALL)
def test_picture_fits_into_one_given_axes(function):
    fig, ax = plt.subplots()
    shown = function(data_for(function), axes=ax)
    assert shown.fig is fig
    assert np.atleast_2d(shown.axes)[0, 0] is ax
    assert ax.get_title(loc="left")
    assert fig.get_suptitle() == ""
    fig.canvas.draw()


def test_picture_fits_into_given_axes_of_any_arrangement():
    given = plt.subplots(6)[1]
    _, axes = show_features_1D(values(20, 6), axes=list(given))
    assert axes.tolist() == [list(given)]
    assert all(len(sample_lines(ax)) == 1 for ax in given)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"axes": "ax"}, "axes="),
        ({"figure": 3}, "figure="),
        ({"n_rows": 0}, "n_rows"),
        ({"n_rows": 1.5}, "n_rows"),
        ({"scale_width": 0}, "scale_width"),
        ({"dpi": -1}, "dpi"),
        ({"color": "no colour"}, "no colour"),
        ({"color": []}, "color=\\[\\] is empty"),
        ({"show_xy_ticks": (1, 2, 3)}, "show_xy_ticks"),
        ({"channel_axis": 3}, "channel_axis"),
        ({"max_timesteps": 0}, "max_timesteps"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, says):
    with pytest.raises(FeatureError, match=says):
        show_features_1D(values(4, 20, 6), **arguments)
    assert not plt.get_fignums()


def test_axes_that_are_too_few_or_doubled_are_refused():
    fig, axes = plt.subplots(1, 2)
    with pytest.raises(FeatureError, match="2 Axes were passed for 6 panels"):
        show_features_1D(values(20, 6), axes=axes)
    with pytest.raises(FeatureError, match="Both axes= and figure="):
        show_features_1D(values(20, 6), axes=axes, figure=fig)


@pytest.mark.parametrize("function", [show_features_1D, show_features_2D, show_features_hist])
def test_more_rows_than_panels_are_reduced_with_a_warning_at_the_callers_line(function):
    with pytest.warns(ThroughTimeWarning, match="n_rows=9") as record:
        _, axes = function(values(6, 20, 6), n_rows=9)
    assert axes.shape == (6, 1)
    assert record[0].filename == __file__


@pytest.mark.parametrize("function", ALL)
def test_data_without_a_finite_value_warn_and_are_marked(function):
    data = np.full(data_for(function).shape, np.nan)
    with pytest.warns(ThroughTimeWarning, match="No value is finite") as record:
        fig = function(data).fig
    fig.canvas.draw()
    assert ("100% NaN" if function is show_features_hist else f"{data.size} NaN") in title(fig)
    assert record[0].filename == __file__


@pytest.mark.parametrize("function", [show_features_0D, show_features_1D, show_features_2D])
def test_dataset_is_refused_with_its_variables(function):
    with pytest.raises(FeatureError, match="Pass one of its arrays: output_gradient"):
        function(labelled().to_dataset())


@pytest.mark.parametrize("function", ALL)
def test_wrong_rank_says_what_was_passed_and_what_would_do(function):
    bad = np.float64(1.0) if function is show_features_hist else values(2, 3, 4, 5)
    if function is show_features_hist:
        with pytest.raises(FeatureError, match=r"shape \(\)"):
            function(bad)
        return
    with pytest.raises(FeatureError, match=r"shape \(2, 3, 4, 5\), expected"):
        function(bad)


def test_figure_can_be_pickled():
    copy = pickle.loads(pickle.dumps(show_features_1D(values(5, 2)).fig))
    assert len(copy.axes) == 2


# --- 1D --------------------------------------------------------------------------------------------


def test_panel_k_draws_channel_k_with_one_line_a_sample():
    data = values(4, 20, 6)
    _, axes = show_features_1D(data, n_rows=2)
    assert axes.shape == (2, 3)
    for channel, ax in enumerate(axes.flat):
        lines = sample_lines(ax)
        assert len(lines) == 4
        for sample, line in enumerate(lines):
            assert np.array_equal(line.get_ydata(), data[sample, :, channel])
            assert np.array_equal(line.get_xdata(), np.arange(20))


def test_sample_has_one_colour_in_all_panels_and_differs_from_others():
    _, axes = show_features_1D(values(16, 20, 6))
    palettes = {tuple(line.get_color() for line in sample_lines(ax)) for ax in axes.flat}
    assert len(palettes) == 1
    assert len(set(palettes.pop())) == 16


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ("red", ["red", "red"]),
        (["r", "b"], ["r", "b"]),
        ((0.1, 0.2, 0.3), [(0.1, 0.2, 0.3)] * 2),
        (2, ["C2", "C2"]),
        ([0, 1], ["C0", "C1"]),
        ("C1", ["C1", "C1"]),
        (np.array([[1, 0, 0], [0, 1, 0]]), [(1, 0, 0), (0, 1, 0)]),
    ],
)
def test_colour_is_taken_as_people_write_it(color, expected):
    _, axes = show_features_1D(values(2, 20, 3), color=color)
    drawn = [mcolors.to_rgba(line.get_color()) for line in sample_lines(axes[0, 0])]
    assert drawn == [mcolors.to_rgba(each) for each in expected]


def test_channel_axis_finds_the_channels():
    data = values(4, 6, 20)
    _, axes = show_features_1D(data, channel_axis=1)
    assert axes.size == 6
    assert np.array_equal(sample_lines(axes.flat[5])[3].get_ydata(), data[3, 5])


def test_limits_are_shared_or_each_panels_own_with_zero_in_the_middle():
    data = values(20, 3) * np.array([1, 10, 100])
    shared = {ax.get_ylim() for ax in show_features_1D(data).axes.flat}
    own = {ax.get_ylim() for ax in show_features_1D(data, equate_axes=False).axes.flat}
    assert (len(shared), len(own)) == (1, 3)
    assert all(low == -high for low, high in shared | own)


def test_timesteps_are_limited_and_the_title_says_so():
    fig, axes = show_features_1D(values(20, 3), max_timesteps=5)
    assert len(sample_lines(axes[0, 0])[0].get_ydata()) == 5
    assert "first 5 of 20 timesteps" in title(fig)


def test_channels_are_labelled_or_not():
    assert [ax.texts[0].get_text() for ax in show_features_1D(values(9, 3)).axes.flat] == ["0", "1", "2"]
    assert not any(ax.texts for ax in show_features_1D(values(9, 3), label_channels=False).axes.flat)


def test_short_last_row_hides_what_is_left_over():
    _, axes = show_features_1D(values(20, 7))
    assert axes.shape == (2, 4)
    assert [ax.get_visible() for ax in axes.flat] == [True] * 7 + [False]


def test_borders_are_shown_or_not():
    for wanted in (True, False):
        _, axes = show_features_1D(values(20, 2), show_borders=wanted)
        assert axes[0, 0].spines["top"].get_visible() is wanted


def test_figure_is_scaled():
    plain = show_features_1D(values(20, 6)).fig.get_size_inches()
    scaled = show_features_1D(values(20, 6), scale_width=2, scale_height=0.5).fig.get_size_inches()
    assert np.allclose(scaled, plain * (2, 0.5))


def test_single_timestep_and_lone_values_stay_visible():
    data = np.array([[1.0, np.nan, 3.0, np.nan, 5.0]]).T
    _, axes = show_features_1D(data)
    dots = axes[0, 0].collections[0].get_offsets()
    assert np.array_equal(dots, [[0, 1], [2, 3], [4, 5]])
    assert len(show_features_1D(values(4, 1, 2)).axes[0, 0].collections) == 4


def test_values_that_are_not_finite_are_marked_and_counted():
    data = np.ones((1, 10, 2))
    data[0, 3, 0], data[0, 5, 0], data[0, 7, 0] = np.nan, np.inf, -np.inf
    fig, axes = show_features_1D(data)
    marks = [mark for mark in axes[0, 0].collections if mark.get_label() == "not finite"]
    assert [mark.get_offsets()[0, 0] for mark in marks] == [3, 5, 7]
    assert "1 NaN, 2 Inf" in title(fig)
    assert "1 NaN, 2 Inf" in [text.get_text() for text in axes[0, 0].texts]
    assert not axes[0, 1].collections


def test_many_channels_share_one_axes_with_lines_joined_by_nan():
    data = values(3, 20, 100)
    data_with_hole = data.copy()
    data_with_hole[1, 4, 7] = np.nan
    fig, axes = show_features_1D(data_with_hole)
    assert axes.shape == (1, 1)
    assert len(fig.axes) == 1
    lines = sample_lines(axes[0, 0])
    assert len(lines) == 3
    drawn = lines[0].get_ydata().reshape(100, 21)
    assert np.isnan(drawn[:, -1]).all()
    # A cell holds an affine picture of its channel.
    slope = np.polyfit(data[0, :, 42], drawn[42, :-1], 1)
    assert np.allclose(np.polyval(slope, data[0, :, 42]), drawn[42, :-1])
    assert "1 NaN" in title(fig)
    fig.canvas.draw()


def test_cells_keep_to_their_place_in_the_grid():
    _, axes = show_features_1D(values(20, 100), n_rows=5)
    line = sample_lines(axes[0, 0])[0]
    x, y = (data.reshape(100, 21)[:, :-1] for data in (line.get_xdata(), line.get_ydata()))
    assert np.array_equal(np.floor(x), np.tile(np.arange(100)[:, None] % 20, 20))
    assert np.array_equal(np.floor(y), np.tile(4 - np.arange(100)[:, None] // 20, 20))


# --- DataArrays ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order", [("unit", "time", "direction", "sample"), ("time", "sample", "direction", "unit")]
)
def test_dims_are_placed_by_name_in_any_order(order):
    data = labelled()
    _, axes = show_features_1D(data.transpose(*order))
    texts = [ax.texts[0].get_text() for ax in axes.flat]
    assert texts == [f"{direction} {unit}" for direction in ("forward", "backward") for unit in range(3)]
    expected = data.sel(direction="backward").isel(unit=1, sample=1)
    assert np.array_equal(sample_lines(axes.flat[4])[1].get_ydata(), expected)


def test_labels_reach_title_and_axes():
    fig, _ = show_features_1D(labelled())
    assert title(fig).replace("\n", " · ") == "dL/dh · lstm · 2 samples · 6 channels · 5 timesteps"
    assert fig.get_supylabel() == "dL/dh [nat]"
    assert fig.get_supxlabel() == "timestep"


def test_time_coordinate_is_what_x_counts():
    data = labelled().assign_coords(time=np.arange(10, 15))
    assert np.array_equal(sample_lines(show_features_1D(data).axes[0, 0])[0].get_xdata(), np.arange(10, 15))
    image = show_features_2D(data).axes[0, 0].images[0]
    assert tuple(image.get_extent())[:2] == (9.5, 14.5)


def test_missing_or_extra_time_is_told():
    with pytest.raises(FeatureError, match="'time'"):
        show_features_1D(labelled().isel(time=0))
    with pytest.raises(FeatureError, match="isel"):
        show_features_0D(labelled())


def test_data_array_without_names_is_read_by_position():
    data = values(4, 20, 6)
    _, axes = show_features_1D(xr.DataArray(data))
    assert np.array_equal(sample_lines(axes.flat[2])[3].get_ydata(), data[3, :, 2])


# --- 2D --------------------------------------------------------------------------------------------


def drawn_image(ax):
    return ax.images[0].get_array()


def test_image_has_channels_on_y_and_time_on_x():
    data = values(4, 20, 6)
    _, axes = show_features_2D(data)
    assert axes.shape == (2, 2)
    for sample, ax in enumerate(axes.flat):
        assert np.array_equal(drawn_image(ax), data[sample].T)
        assert ax.get_title(loc="left") == f"sample {sample}"
    assert np.array_equal(drawn_image(show_features_2D(data, timesteps_xaxis=False).axes[0, 0]), data[0])


def test_bare_matrix_is_time_by_channel():
    assert drawn_image(show_features_2D(values(20, 6)).axes[0, 0]).shape == (6, 20)


def test_default_norm_is_symmetric_shared_and_in_the_title():
    data = values(4, 20, 6) * 1e-3
    fig, axes = show_features_2D(data)
    largest = np.abs(data).max()
    assert {(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in axes.flat} == {(-largest, largest)}
    assert f"range ±{largest:.1e}".replace("e-0", "e-") in title(fig)


def test_auto_norm_gives_each_panel_its_own_symmetric_range():
    data = values(4, 20, 6)
    _, axes = show_features_2D(data, norm="auto")
    for sample, ax in enumerate(axes.flat):
        assert ax.images[0].norm.vmax == -ax.images[0].norm.vmin == np.abs(data[sample]).max()


def test_pair_as_norm_counts_what_lies_outside():
    fig, axes = show_features_2D(np.array([[0.0, 2.0], [-3.0, 0.5]]), norm=[-1, 1])
    assert (axes[0, 0].images[0].norm.vmin, axes[0, 0].images[0].norm.vmax) == (-1, 1)
    assert "range -1 to 1 · 2 outside" in title(fig)


def test_norm_of_matplotlib_is_used_and_left_unscaled():
    norm = mcolors.SymLogNorm(1e-3)
    _, axes = show_features_2D(values(4, 20, 6), norm=norm)
    assert isinstance(axes[0, 0].images[0].norm, mcolors.SymLogNorm)
    assert norm.vmin is None


@pytest.mark.parametrize("norm", ["Auto?", (1, 0), (1, 2, 3), (0, np.nan), 3])
def test_norm_that_is_none_is_refused(norm):
    with pytest.raises(FeatureError, match="norm="):
        show_features_2D(values(20, 6), norm=norm)


def test_zeros_are_drawn_neutral():
    fig, axes = show_features_2D(np.zeros((20, 6)), show_colorbar=True)
    fig.canvas.draw()
    image = axes[0, 0].images[0]
    assert np.allclose(image.cmap(image.norm(0.0)), (1, 1, 1, 1), atol=0.02)
    assert "range 0" in title(fig)


def test_unknown_colour_map_is_refused():
    with pytest.raises(FeatureError, match="no colour map"):
        show_features_2D(values(20, 6), cmap="bwrr")


def test_half_of_a_bare_array_is_mirrored_in_time_with_a_warning():
    data = values(2, 20, 6)
    with pytest.warns(ThroughTimeWarning, match="already in input time"):
        _, axes = show_features_2D(data, reflect_half=True)
    expected = np.concatenate([data[1, :, :3], data[1, ::-1, 3:]], axis=1)
    assert np.array_equal(drawn_image(axes.flat[1]), expected.T)


def test_labelled_data_are_not_mirrored():
    data = labelled().isel(direction=0)
    with pytest.warns(ThroughTimeWarning, match="no effect"):
        _, axes = show_features_2D(data, reflect_half=True)
    assert np.array_equal(drawn_image(axes.flat[1]), data[1].T)


def test_odd_channels_are_not_mirrored():
    with pytest.raises(FeatureError, match="second half of the channels, but there are 5"):
        show_features_2D(values(20, 5), reflect_half=True)


def test_colorbar_is_shared_or_one_for_each():
    assert len(show_features_2D(values(4, 20, 6)).fig.axes) == 4
    assert len(show_features_2D(values(4, 20, 6), show_colorbar=True).fig.axes) == 5
    assert len(show_features_2D(values(4, 20, 6), show_colorbar=True, norm="auto").fig.axes) == 8
    assert len(show_features_2D(values(16, 20, 6), show_colorbar=True, norm="auto").fig.axes) == 17


@pytest.mark.parametrize("cmap", ["vik", "cmc.batlow_r", "lajolla", "RdBu_r", plt.get_cmap("gray")])
def test_every_map_of_the_other_pictures_is_taken(cmap):
    image = show_features_2D(values(20, 6), cmap=cmap).axes[0, 0].images[0]
    wanted = palette(cmap) if isinstance(cmap, str) else tuple(map(to_hex, cmap(np.linspace(0, 1, 256))))
    assert tuple(to_hex(image.cmap(each)) for each in (0.0, 1.0)) == (wanted[0], wanted[-1])


@pytest.mark.parametrize("function", ALL)
def test_files_are_finer_than_the_screen(function, tmp_path):
    fig, _ = function(data_for(function), savepath=tmp_path / "fine.png")
    width = fig.get_size_inches()[0]
    assert (fig.dpi, plt.imread(tmp_path / "fine.png").shape[1]) == (110, round(width * 200))
    fig, _ = function(data_for(function), dpi=50, savepath=tmp_path / "coarse.png")
    assert (fig.dpi, plt.imread(tmp_path / "coarse.png").shape[1]) == (50, int(width * 50))


def test_cells_that_are_not_finite_are_marked_where_they_are():
    data = np.ones((10, 3))
    data[4, 2], data[6, 1] = np.nan, np.inf
    fig, axes = show_features_2D(data)
    marks = [mark.get_offsets().tolist() for mark in axes[0, 0].collections]
    assert marks == [[[4, 2]], [[6, 1]]]
    assert "1 NaN, 1 Inf" in title(fig)


def test_more_values_than_pixels_keep_their_spikes():
    data = np.zeros((50_000, 2))
    data[33_333, 1] = -7
    image = drawn_image(show_features_2D(data).axes[0, 0])
    assert image.shape[1] < 2000
    assert image.min() == -7


def test_directions_are_named_and_separated():
    _, axes = show_features_2D(labelled())
    assert [text.get_text() for text in axes[0, 0].get_yticklabels()] == ["forward", "backward"]
    assert [line.get_ydata()[0] for line in axes[0, 0].lines] == [2.5]


def test_many_samples_become_one_image_with_gutters():
    data = values(70, 8, 6).copy()
    data[0, 0, 0] = np.nan
    fig, axes = show_features_2D(data, show_colorbar=True)
    assert axes.shape == (1, 1)
    sheet = np.ma.filled(drawn_image(axes[0, 0]), np.nan)
    finite = np.unique(sheet[np.isfinite(sheet)])
    assert np.array_equal(finite, np.unique(data[np.isfinite(data)]))
    assert np.isnan(sheet[0]).all()
    assert "1 NaN" in title(fig)
    fig.canvas.draw()


# --- 0D --------------------------------------------------------------------------------------------


def unit_lines(ax):
    return [line for line in ax.lines if line.get_marker() != "None"]


def test_points_stand_at_their_sample_with_one_colour_a_unit():
    data = values(16, 6)
    _, ax = show_features_0D(data)
    lines = unit_lines(ax)
    assert len(lines) == 6
    for unit, line in enumerate(lines):
        assert np.array_equal(line.get_ydata(), data[:, unit])
        assert np.array_equal(np.round(line.get_xdata()), np.arange(16))
    assert len({mcolors.to_rgba(line.get_markeredgecolor()) for line in lines}) == 6
    assert ax.get_xlabel() == "sample"


def test_no_unit_is_as_pale_as_the_paper():
    for line in unit_lines(show_features_0D(values(3, 9)).axes):
        assert np.dot(mcolors.to_rgb(line.get_markeredgecolor()), (0.2126, 0.7152, 0.0722)) < 0.75


def test_colour_map_asked_for_is_used_for_few_units():
    lines = unit_lines(show_features_0D(values(3, 2), cmap="viridis").axes)
    assert mcolors.to_hex(lines[0].get_markeredgecolor()) == "#440154"


def test_vector_is_one_sample():
    assert len(unit_lines(show_features_0D(values(6)).axes)[0].get_xdata()) == 1


def test_zero_line_is_optional():
    names = [line.get_label() for line in show_features_0D(values(4, 6), show_y_zero=False).axes.lines]
    assert "zero" not in names
    assert "zero" in [line.get_label() for line in show_features_0D(values(4, 6)).axes.lines]


def test_points_that_are_not_finite_are_marked():
    data = values(4, 6).copy()
    data[1, 2] = np.inf
    fig, ax = show_features_0D(data)
    assert "not finite" in [mark.get_label() for mark in ax.collections]
    assert "1 Inf" in title(fig)


def test_unknown_marker_is_refused():
    with pytest.raises(FeatureError, match="marker"):
        show_features_0D(values(4, 6), marker="spoon")


def test_labelled_points_are_read_by_name():
    _, ax = show_features_0D(labelled().isel(time=-1).transpose("unit", "direction", "sample"))
    assert [line.get_label() for line in unit_lines(ax)][:3] == ["forward 0", "forward 1", "forward 2"]


# --- histograms ------------------------------------------------------------------------------------


def bars(ax):
    return next(patch for patch in ax.patches if patch.get_label() == "counts").get_data()


def test_histogram_counts_every_value_of_its_channel():
    data = values(4, 20, 6)
    _, axes = show_features_hist(data, bins=17)
    for channel, ax in enumerate(axes.flat):
        counts, edges, _ = bars(ax)
        assert np.array_equal(counts, np.histogram(data[..., channel], edges)[0])
        assert counts.sum() == 80
        assert len(counts) == 17


def test_arrays_get_a_panel_each_and_their_names():
    arrays = {"kernel": values(5, 8), "bias": values(8)}
    _, axes = show_features_hist(arrays)
    assert [ax.texts[0].get_text() for ax in axes.flat] == ["kernel", "bias"]
    assert [bars(ax)[0].sum() for ax in axes.flat] == [40, 8]
    _, axes = show_features_hist(list(arrays.values()), annotations=["W", "b"])
    assert [ax.texts[0].get_text() for ax in axes.flat] == ["W", "b"]
    _, axes = show_features_hist(list(arrays.values()), annotations=None)
    assert not any(ax.texts for ax in axes.flat)


def test_whole_array_is_one_panel():
    _, axes = show_features_hist(values(4, 20, 6), by="array")
    assert axes.shape == (1, 1)
    assert bars(axes[0, 0])[0].sum() == 480


def test_labelled_data_are_sorted_by_the_dim_asked_for():
    _, axes = show_features_hist(labelled(), by="direction")
    assert [ax.texts[0].get_text() for ax in axes.flat] == ["forward", "backward"]
    assert [bars(ax)[0].sum() for ax in axes.flat] == [30, 30]
    assert show_features_hist(labelled()).axes.size == 6


def test_shares_of_zero_nan_and_inf_are_stated():
    fig, axes = show_features_hist(np.array([0.0, 0.0, np.nan, np.inf, 1.0, 2.0, 3.0, 4.0]))
    text = axes[0, 0].texts[-1].get_text()
    assert text == "25% zero\n12.5% NaN\n12.5% Inf"
    assert "25% zero, 12.5% NaN, 12.5% Inf" in title(fig)


def test_peaks_are_cut_to_the_next_bar_and_say_what_they_hold():
    data = np.concatenate([np.zeros(100), np.ones(40), np.full(7, 2.0)])
    _, axes = show_features_hist(data, bins=3, peaks_to_clip=1)
    assert bars(axes[0, 0])[0].tolist() == [40, 40, 7]
    assert "100" in [text.get_text().strip() for text in axes[0, 0].texts]
    assert [mark.get_offsets().tolist()[0][1] for mark in axes[0, 0].collections] == [40]


def test_limits_are_the_callers_centred_or_shared():
    _, axes = show_features_hist(values(4, 20, 6), xlims=(-0.5, 1))
    assert axes[0, 0].get_xlim() == (-0.5, 1)
    assert "outside" in axes[0, 0].texts[-1].get_text()
    low, high = show_features_hist(values(50) + 1, center_zero=True).axes[0, 0].get_xlim()
    assert low == -high
    own = show_features_hist(values(50, 3) * np.array([1, 2, 3]), equate_axes=False).axes
    assert len({ax.get_xlim() for ax in own.flat}) == 3


@pytest.mark.parametrize("data", [np.zeros(9), np.full(9, 1e-9), np.ones(1)])
def test_histogram_of_one_value_is_drawn(data):
    show_features_hist(data).fig.canvas.draw()


def test_many_histograms_share_one_axes():
    fig, axes = show_features_hist(values(50, 80), peaks_to_clip=1)
    assert axes.shape == (1, 1)
    assert len(next(c for c in axes[0, 0].collections if c.get_label() == "counts").get_paths()) == 80
    fig.canvas.draw()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"bins": 0}, "bins="),
        ({"bins": "many"}, "bins="),
        ({"xlims": (1, 0)}, "xlims="),
        ({"peaks_to_clip": -1}, "peaks_to_clip"),
        ({"annotations": ["a"]}, "annotations="),
        ({"annotations": "names"}, "annotations="),
        ({"by": "sample"}, "by="),
    ],
)
def test_histogram_arguments_that_make_no_sense_are_refused(arguments, says):
    with pytest.raises(FeatureError, match=says):
        show_features_hist(values(4, 20, 6), **arguments)


def test_no_bar_of_many_histograms_vanishes_between_pixels():
    data = np.zeros((50, 512))
    data[0], data[1] = -1.0, 1.0
    fig, axes = show_features_hist(data)  # a peak of 48 in one of 100 bins, which is narrower than a pixel
    fig.canvas.draw()
    image = np.asarray(fig.canvas.buffer_rgba())[::-1, :, :3].min(axis=-1)
    columns = 32
    for cell in range(512):
        middle = cell % columns + 0.5, 512 // columns - 1 - cell // columns + 0.3
        x, y = (round(float(at)) for at in axes[0, 0].transData.transform(middle))
        assert image[y, x - 4 : x + 5].min() < 160, f"the peak of histogram {cell} is not seen"
