"""The names of see-rnn on any Keras: a script in the manner of its README, and checks of each name."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import throughtime as tt
import throughtime.compat.see_rnn as see_rnn

ROOT = Path(__file__).resolve().parent.parent
NAMES = (
    *("detect_nans", "features_0D", "features_1D", "features_2D", "features_hist", "features_hist_v2"),
    *("get_full_name", "get_gradients", "get_layer", "get_outputs", "get_rnn_weights", "get_weights"),
    *("get_weight_penalties", "hist_clipped", "rnn_heatmap", "rnn_histogram", "rnn_summary", "scalefig"),
    *("weight_loss", "weights_norm"),
)
SAMPLES, STEPS, FEATURES = 5, 7, 4


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(SAMPLES, STEPS, FEATURES)), rng.normal(size=(SAMPLES, 2))
    return x.astype("float32"), y.astype("float32")


def model_of(keras: Any, kind: str = "LSTM", *, both_ways: bool = False, backwards: bool = False) -> Any:
    """A recurrent layer with a sequence, one without, a dense layer; the first is regularised."""
    layers = keras.layers
    options = {"return_sequences": True, "kernel_regularizer": keras.regularizers.L2(0.1)}
    first = getattr(layers, kind)(3, go_backwards=backwards, name="first", **options)
    first = layers.Bidirectional(first, name="first") if both_ways else first
    inputs = keras.Input((STEPS, FEATURES))
    outputs = layers.Dense(2, name="dense")(layers.GRU(4, name="second")(first(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    return model


def readme_script(keras: Any, folder: Any) -> dict[str, Any]:
    """Calls as see-rnn's README makes them; only the import differs."""
    units, batch_shape = 6, (16, 20, 12)
    inputs = keras.Input(batch_shape=batch_shape)
    sequence = keras.layers.LSTM(units, activation="tanh", return_sequences=True, name="lstm")(inputs)
    model = keras.Model(inputs, keras.layers.LSTM(units, return_sequences=False, name="last")(sequence))
    model.compile(keras.optimizers.Adam(4e-3), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=batch_shape).astype("float32"), rng.uniform(-1, 1, (16, units)).astype("float32")
    model.train_on_batch(x, y)

    grads_all = see_rnn.get_gradients(model, 1, x, y)
    grads_last = see_rnn.get_gradients(model, 2, x, y)
    outs = see_rnn.get_outputs(model, 1, x)
    shown = {
        "1D": see_rnn.features_1D(grads_all, n_rows=2, xy_ticks=[1, 1]),
        "1D of one": see_rnn.features_1D(outs[:1], share_xy=True, y_zero=True),
        "1D apart": see_rnn.features_1D(outs[:1], share_xy=False),
        "2D": see_rnn.features_2D(grads_all, n_rows=8, xy_ticks=[1, 1], norm=(-0.01, 0.01)),
        "2D bare": see_rnn.features_2D(grads_all[:, :, 0], norm=(-1e-4, 1e-4), title_mode=False),
        "2D weights": see_rnn.features_2D(
            rng.normal(size=(4, 6, 8)),
            n_rows=2,
            norm=(-0.1, 0.1),
            tight=True,
            borderwidth=1,
            title="My own",
        ),
        "0D": see_rnn.features_0D(grads_last),
        "histograms": see_rnn.rnn_histogram(model, "lstm", equate_axes=False, bias=False),
        "histograms alike": see_rnn.rnn_histogram(model, "lstm", equate_axes=2),
        "heatmap": see_rnn.rnn_heatmap(model, "lstm", norm=(-0.8, 0.8), savepath=folder / "heatmap.png"),
    }
    options = {"mode": "grads", "input_data": x, "labels": y, "cmap": None, "absolute_value": True}
    shown["intensity"] = see_rnn.rnn_heatmap(model, "lstm", **options)
    see_rnn.rnn_summary(model, 1)
    return {"model": model, "grads_all": grads_all, "grads_last": grads_last, "outs": outs, **shown}


def check_readme_script(keras: Any, folder: Any, capsys: Any) -> None:
    found = readme_script(keras, folder)
    assert found["grads_all"].shape == (16, 20, 6)
    assert found["grads_last"].shape == (16, 6)
    assert found["1D"].axes.shape == (2, 3)
    assert len({axes.get_ylim() for axes in found["1D"].axes.flat}) == 1
    assert len({axes.get_ylim() for axes in found["1D apart"].axes.flat}) == 6
    lines = [line.get_ydata() for line in found["1D of one"].axes[0, 0].lines]
    assert any(len(line) == 2 and not np.any(line) for line in lines)  # y_zero
    image = found["2D weights"].axes[0, 0].images[0]
    assert image.get_clim() == (-0.1, 0.1)
    assert {spine.get_linewidth() for spine in found["2D weights"].axes[0, 0].spines.values()} == {1}
    assert found["2D weights"].fig.get_suptitle() == "My own"
    assert found["histograms"].axes.shape == (2, 4)
    assert found["histograms alike"].axes.shape == (3, 4)
    assert (folder / "heatmap.png").stat().st_size
    assert found["intensity"].panels[0].marks[0].values.min() >= 0
    assert "gates input, forget, candidate, output" in capsys.readouterr().out


def check_weights(keras: Any) -> None:
    """Weights, gates and norms are those that the framework keeps."""
    model = model_of(keras, both_ways=True)
    kept = model.get_layer("first").get_weights()
    for found in (see_rnn.get_rnn_weights(model, "first"), see_rnn.get_weights(model, 1)):
        assert len(found) == len(kept) == 6
        for one, other in zip(found, kept, strict=True):
            np.testing.assert_array_equal(one, other)
    gates = see_rnn.get_rnn_weights(model, "first", concat_gates=False)
    for one, other in zip(gates, kept, strict=True):
        np.testing.assert_array_equal(np.concatenate(one, axis=-1), other)
    every = see_rnn.get_weights(model, "*", as_dict=True, omit_names="bias")
    assert len(every) == 7
    norms = see_rnn.weights_norm(model, "dense")
    kernel = model.get_layer("dense").get_weights()[0]
    assert max(norms.values()) == pytest.approx(np.linalg.norm(kernel), rel=1e-6)
    sums = see_rnn.weights_norm(model, layer=model.get_layer("dense"), norm_fn=np.abs, omit_names=["bias"])
    assert [*sums.values()] == pytest.approx([np.abs(kernel).sum()], rel=1e-6)
    penalties = see_rnn.get_weight_penalties(model)
    assert [*penalties] == ["first/kernel"]
    expected = 0.1 * (np.square(kept[0]).sum() + np.square(kept[3]).sum())
    assert see_rnn.weight_loss(model) == pytest.approx(expected, rel=1e-5)


def check_layers(keras: Any) -> None:
    """Layers go by index, name, part of a name, list and "*"; what is none is refused with the remedy."""
    model = model_of(keras)
    assert see_rnn.get_layer(model, -1) is see_rnn.get_layer(model, "den") is model.get_layer("dense")
    assert see_rnn.get_layer(model, layer=model.layers[1]) is model.layers[1]
    assert see_rnn.get_full_name(model, "fir") == "first"
    assert see_rnn.get_full_name(model, [1, "sec"]) == ["first", "second"]
    assert see_rnn.get_full_name(model, "*") == ["first", "second", "dense"]
    with pytest.raises(tt.AmbiguousLayerError, match=r"'s' is a part of first, second, dense"):
        see_rnn.get_layer(model, "s")
    for _id in (9, "third"):
        with pytest.raises(tt.LayerNotFoundError, match=r"first"):
            see_rnn.get_layer(model, _id)
    for _id in (None, 1.5, True):
        with pytest.raises(TypeError, match=r"an index, a name"):
            see_rnn.get_layer(model, _id)


def check_refusals(keras: Any) -> None:
    """Unknown modes and arguments are a TypeError of ours that names the successor."""
    model, (x, y) = model_of(keras), batch()
    array = np.ones((2, 3, 4))
    calls = [
        (lambda: see_rnn.get_gradients(model, 1, x, y, mode="output"), r"Did you mean outputs.*tt\.capture"),
        (lambda: see_rnn.get_gradients(model, 1, x, y, params=[]), r"tt\.capture\(model, x, y, layers=…"),
        (lambda: see_rnn.get_weights(model, 1, mode="foo"), r"weights, grads.*tt\.capture"),
        (lambda: see_rnn.get_rnn_weights(model, 1, as_tensors=True), r"layer\.weights"),
        (lambda: see_rnn.get_outputs(model, 1, x, foo=1), r"tt\.capture"),
        (lambda: see_rnn.weights_norm(model, stat_fns=(np.max,)), r"tt\.weights"),
        (lambda: see_rnn.weights_norm(model, norm_fn=2), r"\(outer, inner\)"),
        (lambda: see_rnn.rnn_heatmap(model, 1, mode=3), r"weights, grads"),
        (lambda: see_rnn.rnn_heatmap(model, 1, gate_sep_width=1), r"tt\.plots\.weights"),
        (lambda: see_rnn.features_1D(array, configs={}), r"fig, axes"),
        (lambda: see_rnn.features_2D(array, chanel_axis=1), r"Did you mean channel_axis"),
        (lambda: see_rnn.features_1D(array, annotations=["a"]), r"DataArray"),
        (lambda: see_rnn.features_hist_v2([[array], [array, array]]), r"rows of one length"),
        (lambda: see_rnn.detect_nans("text"), r"data="),
    ]
    for call, words in calls:
        with pytest.raises(TypeError, match=words) as caught:
            call()
        assert isinstance(caught.value, tt.ThroughTimeError)


REQUIRED = {  # besides the model
    **dict.fromkeys(("get_full_name", "get_layer", "get_outputs", "get_rnn_weights", "get_weights"), (1,)),
    **dict.fromkeys(("rnn_heatmap", "rnn_histogram"), (1,)),
    "get_gradients": (1, None, None),
    "get_outputs": (1, None),
}
OLD_OPTIONS: dict[str, Any] = {"configs": {}, "norm": (-1, 1), "subplots_kw": {}, "show_xy_ticks": (1, 0)}
OLD_OPTIONS |= {"bins": 5, "bordercolor": "red", "borderwidth": 1, "channel_axis": -1, "cmap": "bwr"}
OLD_OPTIONS |= {"colnames": ["a"], "h": 1, "max_timesteps": 5, "show_title": "text", "side_annot": "row"}
OLD_OPTIONS |= {"title": "grads", "title_mode": "outputs", "w": 1, "xy_ticks": (1, 1), "ylims": (-1, 1)}
OLD_OPTIONS |= dict.fromkeys(
    ("equate_axes", "label_channels", "pad_xticks", "share_xy", "show_borders"), True
)
OLD_OPTIONS |= dict.fromkeys(("show_colorbar", "show_y_zero", "subplot_samples", "tight", "verbose"), True)
OLD_OPTIONS |= dict.fromkeys(("timesteps_xaxis", "y_zero"), True)


def check_unknown_argument(keras: Any, name: str) -> None:
    """Each function refuses an argument that never was with what to use instead."""
    is_of_array = name.startswith(("detect", "features", "hist", "scale"))
    model = np.ones((2, 3, 4)) if is_of_array else model_of(keras)
    with pytest.raises(tt.ArgumentError, match=rf"{name}\(\) takes no argument 'foo' here\. .*tt\.capture"):
        getattr(see_rnn, name)(model, *REQUIRED.get(name, ()), foo=1)


def check_old_option(name: str) -> None:
    """An option of the old plots works, or is refused with its successor: nothing is dropped silently."""
    array, taken = np.random.default_rng(0).normal(size=(2, 6, 4)), set()
    for option, value in OLD_OPTIONS.items():
        with contextlib.suppress(tt.ArgumentError):  # any other error fails
            getattr(see_rnn, name)(array[:, -1] if name == "features_0D" else array, **{option: value})
            taken.add(option)
        plt.close("all")
    refused = set(OLD_OPTIONS) - taken
    assert {"configs", "pad_xticks", "subplots_kw", "subplot_samples"} <= refused
    assert not {"tight", "borderwidth", "title", "w", "h", "ylims"} & refused


def check_pictures(monkeypatch: Any) -> None:
    """What only the old functions took is set on what the classic ones draw."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=(2, 9, 4))
    with pytest.warns(tt.ThroughTimeWarning, match="input time already"):
        shown = see_rnn.features_2D(array, reflect_half=True)
    np.testing.assert_allclose(shown.axes[0, 0].images[0].get_array(), array[0].T)  # nothing is mirrored
    fig, axes = see_rnn.features_1D(array, ylims=(-9, 9), bordercolor="red", title="grads")
    assert axes[0, 0].get_ylim() == (-9, 9)
    assert axes[0, 0].spines["left"].get_edgecolor() == (1, 0, 0, 1)
    assert fig.get_suptitle() == "Gradients"
    grid = see_rnn.features_hist_v2([[array, array], [array, array]], colnames=["a", "b"], side_annot="layer")
    assert grid.axes.shape == (2, 2)
    assert see_rnn.features_hist_v2([array, array, array]).axes.shape == (1, 3)
    assert see_rnn.features_hist(array).axes.size == 4
    clipped, full = see_rnn.hist_clipped(array, bins=5), see_rnn.hist_clipped(array, 0, bins=5)
    assert clipped.axes[0, 0].get_ylim()[1] < full.axes[0, 0].get_ylim()[1]
    monkeypatch.setenv("SCALEFIG", "0.5")
    before = fig.get_size_inches()
    see_rnn.scalefig(fig)
    np.testing.assert_allclose(fig.get_size_inches(), before / 2)
    monkeypatch.setenv("SCALEFIG", "no")
    with pytest.raises(TypeError, match="SCALEFIG='no'"):
        see_rnn.scalefig(fig)
    assert see_rnn.detect_nans([1.0, np.nan, np.inf, 0.0]) == "25% NaN, 25% Inf"
    assert see_rnn.detect_nans([1.0, np.inf], include_inf=False) is None
