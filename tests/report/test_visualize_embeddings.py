import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.offsetbox import AnnotationBbox
from PIL import Image
from sklearn.decomposition import PCA

from mtcm_nerfstudio.report.plot_style import DROPPED, KEPT, save_figure
from mtcm_nerfstudio.report.scatter import spread_out
from mtcm_nerfstudio.report.visualize_embeddings import (
    plot_tsne,
    plot_umap,
    principal_components,
    tsne_layout,
    umap_installed,
    umap_layout,
)

pytestmark = pytest.mark.filterwarnings("error")

needs_umap = pytest.mark.skipif(not umap_installed(), reason="needs umap-learn")


def two_groups(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 1, (n // 2, 20)), rng.normal(30, 1, (n - n // 2, 20))])


def names(n: int) -> list[str]:
    return [f"images/{i:04d}.jpg" for i in range(n)]


def poses(n: int) -> np.ndarray:
    turn = np.linspace(0, 6, n)
    return np.stack(
        [np.cos(turn), np.sin(turn), 0 * turn, np.cos(turn / 2), np.sin(turn / 2), 0 * turn, 0 * turn], axis=1
    )


@pytest.mark.parametrize("n", (1, 2, 3, 5, 6, 7, 30))
@pytest.mark.parametrize("plot", (plot_tsne, pytest.param(plot_umap, marks=[needs_umap, pytest.mark.slow])))
def test_maps_of_any_size_are_written(plot, n: int, tmp_path: Path) -> None:
    kept = np.arange(n) % 3 != 1
    figure = plot(
        two_groups(n),
        poses(n),
        names(n),
        kept,
        np.linspace(0, 1, n),
        ["front", None, "back"] * (n // 3) + ["front"] * (n % 3),
    )
    with Image.open(save_figure(figure, tmp_path / "map.png")) as image:
        assert image.size == (1872, 1008)
    assert len(plt.get_fignums()) == 0
    fallback = "principal component" in figure.axes[0].get_xlabel()
    assert fallback == (n < 6)
    assert ("too few for" in figure.axes[0].get_title(loc="left")) == fallback


@pytest.mark.parametrize("layout", (tsne_layout, pytest.param(umap_layout, marks=[needs_umap, pytest.mark.slow])))
def test_layouts_keep_groups_apart_and_are_the_same_every_time(layout) -> None:
    rows = two_groups(40)
    places = layout(rows)
    assert np.array_equal(places, layout(rows))
    middles = places[:20].mean(axis=0), places[20:].mean(axis=0)
    inside = max(
        np.linalg.norm(places[:20] - middles[0], axis=1).max(), np.linalg.norm(places[20:] - middles[1], axis=1).max()
    )
    assert np.linalg.norm(middles[0] - middles[1]) > inside


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        save_figure(plot_tsne(two_groups(20), poses(20), names(20)), tmp_path / f"{i}.png").read_bytes() for i in (1, 2)
    )
    assert first == second


def test_rows_that_are_not_finite_are_left_out_and_counted() -> None:
    predicted = poses(12)
    predicted[3], predicted[4, 0] = np.nan, np.inf
    figure = plot_tsne(two_groups(12), predicted, names(12))
    assert "2 frames have none" in figure.axes[2].get_title(loc="left")
    assert "have none" not in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize("rows", (np.full((8, 5), np.nan), np.ones((8, 5)), np.zeros((8, 1))))
def test_nothing_to_tell_apart_is_no_error(rows: np.ndarray, tmp_path: Path) -> None:
    save_figure(plot_tsne(rows, rows, names(8)), tmp_path / "map.png")


def test_principal_components_are_those_of_sklearn() -> None:
    rows = np.random.default_rng(0).normal(size=(15, 6)).astype(np.float32)
    assert np.allclose(
        np.abs(principal_components(rows)), np.abs(PCA(2).fit_transform(rows.astype(np.float64))), atol=1e-9
    )


def test_dropped_frames_are_named_by_how_little_they_belong() -> None:
    kept = np.ones(60, dtype=bool)
    kept[:20] = False
    inconsistency = np.linspace(1, 0, 60)
    figure = plot_tsne(np.random.default_rng(0).normal(size=(60, 9)), None, names(60), kept, inconsistency)
    named = {text.get_text() for text in figure.axes[0].texts}
    assert "0000" in named and len(named) <= 8
    assert named <= {f"{i:04d}" for i in range(8)}
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_commonest_labels_have_colours_and_the_rest_is_grey() -> None:
    labels = [f"label {i // 3}" for i in range(45)]
    figure = plot_tsne(two_groups(45), None, names(45), labels=labels)
    legend = figure.axes[2].get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    assert words[:2] == ["label 0", "label 1"] and words[-1] == "another label, or none"
    assert len(words) == 9


def test_pictures_stand_where_their_frames_do_framed_by_verdict(tmp_path: Path) -> None:
    images = [tmp_path / f"{i}.png" for i in range(45)]
    for i, path in enumerate(images[:-1]):
        Image.new("RGB", (80, 60), (5 * i, 0, 0)).save(path)
    images[-1].write_bytes(b"no picture")
    kept = np.arange(45) % 9 != 0
    spread = np.random.default_rng(0).normal(size=(45, 9))
    figure = plot_tsne(spread, None, names(45), kept, images=images)
    assert len(figure.axes) == 4 and "in pictures" in figure.axes[2].get_title(loc="left")  # the fourth is a scale
    boxes = [artist for artist in figure.axes[2].artists if isinstance(artist, AnnotationBbox)]
    assert 12 < len(boxes) < 45
    places = figure.axes[0].collections[0].get_offsets()
    edges = {to_hex(box.patch.get_edgecolor()) for box in boxes}
    assert edges == {KEPT.lower(), DROPPED.lower()} and len(places) == kept.sum()


def test_spread_out_places_come_from_every_group() -> None:
    places = np.concatenate([np.random.default_rng(0).normal(0, 0.1, (50, 2)), [[9.0, 9.0], [np.nan, 0.0]]])
    chosen = spread_out(places, 0.2)
    assert 50 in chosen and 51 not in chosen and len(chosen) == 2
    assert spread_out(places[:2] * 0, 0.2) == [0] and spread_out(places[-1:], 0.2) == []


def test_without_umap_there_is_no_picture_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with caplog.at_level(logging.WARNING):
        assert plot_umap(two_groups(8), None, names(8)) is None
    assert [record.message.count("\n") for record in caplog.records] == [0]
    assert "umap-learn" in caplog.text


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="labels has 2 rows for 8 frames"):
        plot_tsne(two_groups(8), None, names(8), labels=["a", "b"])
