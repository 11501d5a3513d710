from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image
from scipy.spatial.transform import Rotation
from sklearn.metrics.pairwise import cosine_similarity

from mtcm_nerfstudio.report.analysis_utils import (
    PoseDeltas,
    plot_attention_heatmap,
    plot_pose_deltas,
    plot_recon_deltas,
    plot_similarity_matrix,
    pose_deltas,
    reconstruction_deltas,
    save_figure,
    similarity_matrix,
)

pytestmark = pytest.mark.filterwarnings("error")

PARTS = ("embedding", "pose", "timestamp", "mask_area", "focal")
MANY = [pytest.param(n, marks=pytest.mark.slow) for n in (50, 110, 400)]


def poses(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    c2w = np.tile(np.eye(4), (n, 1, 1))
    c2w[:, :3, :3] = Rotation.random(n, random_state=seed).as_matrix()
    c2w[:, :3, 3] = rng.normal(size=(n, 3))
    return c2w


def names(n: int) -> list[str]:
    return [f"images/frame_{i:05d}.jpg" for i in range(n)]


def all_pictures(n: int, seed: int = 0) -> dict[str, Figure]:
    """Every picture of a capture of n frames with some dropped, one without a pose and none with a mask."""
    rng = np.random.default_rng(seed)
    kept = rng.random(n) > 0.2
    inconsistency = rng.random(n)
    attention = rng.random((3, 2, n, n)) + 0.01
    attention /= attention.sum(axis=-1, keepdims=True)
    reconstructed = poses(n, seed + 1)
    reconstructed[0] = np.nan
    recon = rng.random((n, 5))
    recon[:, 3] = np.nan
    embeddings = rng.normal(size=(n, 16))
    similarity = similarity_matrix(embeddings)
    rest = (names(n), kept, inconsistency)
    return {
        "attention": plot_attention_heatmap(attention, *rest),
        "layers": plot_attention_heatmap(attention, *rest, layers="each"),
        "pose": plot_pose_deltas(pose_deltas(poses(n), reconstructed), *rest),
        "recon": plot_recon_deltas(recon, PARTS, *rest),
        "similarity": plot_similarity_matrix(similarity, *rest),
    }


@pytest.mark.parametrize("n", (1, 2, 3, 12, *MANY))
def test_every_picture_is_of_a_readable_size_and_no_name_covers_another(n: int, tmp_path: Path) -> None:
    for name, figure in all_pictures(n).items():
        path = save_figure(figure, tmp_path / "logs" / f"{name}.png")
        with Image.open(path) as image:
            width, height = image.size
            assert image.format == "PNG"
            assert 400 < width < 2600 and 200 < height < 2600, (name, image.size)
            assert np.asarray(image.convert("L")).std() > 5
        for axes in filter(lambda axes: axes.axison, figure.axes):
            assert_apart(axes.xaxis, 0, name)
            assert_apart(axes.yaxis, 1, name)


def assert_apart(axis: Axis, direction: int, name: str) -> None:
    boxes = [
        label.get_window_extent().get_points()[:, direction] for label in axis.get_ticklabels() if label.get_text()
    ]
    for before, after in pairwise(sorted(boxes, key=tuple)):
        assert before[1] <= after[0] + 1, (name, axis)


@pytest.mark.parametrize("n", (12, *MANY))
def test_names_of_the_worst_frames_stand_apart(n: int) -> None:
    figure = all_pictures(n)["pose"]
    figure.canvas.draw()
    for axes in figure.axes[:2]:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert boxes
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_worst_frame_is_named() -> None:
    position = np.linspace(0.0, 0.1, 40)
    position[17] = 3.0
    figure = plot_pose_deltas(PoseDeltas(position, position), names(40))
    assert "frame_00017" in [text.get_text() for text in figure.axes[0].texts]


def test_no_name_lies_across_a_taller_stem() -> None:
    slope = np.linspace(1.0, 2.0, 40)
    figure = plot_pose_deltas(PoseDeltas(slope, slope[::-1].copy()), names(40))
    assert [text.get_text() for text in figure.axes[0].texts] == ["frame_00039"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["frame_00000"]


def test_one_far_pose_does_not_flatten_the_others() -> None:
    position = np.full(40, 0.1)
    position[17] = 1000.0
    figure = plot_pose_deltas(PoseDeltas(position, np.ones(40)), names(40))
    figure.canvas.draw()
    axes = figure.axes[0]
    heights = axes.transData.transform([(0, 0.0), (0, 0.1), (0, 1000.0)])[:, 1]
    assert (heights[1] - heights[0]) / (heights[2] - heights[0]) > 0.05
    assert "logarithmic" in axes.get_ylabel()


def test_few_frames_are_all_named_and_many_are_thinned_with_dropped_ones_first() -> None:
    few = plot_pose_deltas(PoseDeltas(np.ones(12), np.ones(12)), names(12))
    assert len(few.axes[-1].get_xticks()) == 12
    kept = np.ones(400, dtype=bool)
    kept[[33, 101, 367]] = False
    many = plot_pose_deltas(PoseDeltas(np.ones(400), np.ones(400)), names(400), kept)
    shown = many.axes[-1].get_xticks()
    assert 20 < len(shown) < 130
    assert {33, 101, 367} <= set(shown.astype(int).tolist())


def test_the_same_input_gives_the_same_bytes_and_nothing_of_the_day_or_the_machine(tmp_path: Path) -> None:
    first, second = (
        {name: save_figure(one, tmp_path / f"{run}{name}.png").read_bytes() for name, one in all_pictures(5).items()}
        for run in "ab"
    )
    assert first == second
    for content in first.values():
        assert b"tEXt" not in content and b"tIME" not in content and b"matplotlib" not in content.lower()


def test_no_figure_is_left_with_pyplot() -> None:
    before = plt.get_fignums()
    all_pictures(4)
    assert plt.get_fignums() == before


def test_kept_and_dropped_differ_in_shape_as_well_as_in_colour() -> None:
    kept = np.array([True, False, True, False])
    figure = plot_pose_deltas(PoseDeltas(np.ones(4), np.ones(4)), names(4), kept)
    marks = [one for one in figure.axes[0].collections if isinstance(one, PathCollection) and len(one.get_offsets())]
    assert len(marks) == 2
    assert len({one.get_paths()[0].vertices.shape for one in marks}) == 2
    assert len({tuple(np.ravel(one.get_facecolor())) for one in marks}) == 2


@pytest.mark.parametrize("n", (1, 2, 5))
def test_verdicts_and_scores_are_optional(n: int, tmp_path: Path) -> None:
    even = np.full((2, 2, n, n), 1.0 / n)
    figures = [
        plot_attention_heatmap(even, names(n)),
        plot_attention_heatmap(even, names(n), layers=1),
        plot_similarity_matrix(np.ones((n, n)), names(n)),
        plot_pose_deltas(PoseDeltas(np.zeros(n), np.zeros(n)), names(n)),
        plot_recon_deltas(np.zeros((n, 5)), PARTS, names(n)),
    ]
    for i, figure in enumerate(figures):
        save_figure(figure, tmp_path / f"{i}.png")


def test_a_capture_without_any_pose_or_embedding_is_drawn_as_absent(tmp_path: Path) -> None:
    nothing = np.full(5, np.nan)
    save_figure(plot_pose_deltas(PoseDeltas(nothing, nothing), names(5)), tmp_path / "pose.png")
    save_figure(plot_recon_deltas(np.full((5, 5), np.nan), PARTS, names(5)), tmp_path / "recon.png")
    save_figure(plot_similarity_matrix(np.full((5, 5), np.nan), names(5)), tmp_path / "similarity.png")


def test_arrays_of_another_length_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="inconsistency has 2 rows for 3 frames"):
        plot_pose_deltas(PoseDeltas(np.ones(3), np.ones(3)), names(3), None, np.ones(2))
    with pytest.raises(ValueError, match="no frames"):
        plot_recon_deltas(np.ones((0, 5)), PARTS, [])
    with pytest.raises(ValueError, match="layers=4: the model has 2 layers"):
        plot_attention_heatmap(np.ones((2, 1, 1, 1)), names(1), layers=4)


def test_rotation_deltas_are_those_of_scipy_and_position_deltas_euclidean() -> None:
    a, b = poses(30, 1), poses(30, 2)
    deltas = pose_deltas(a, b)
    turns = Rotation.from_matrix(a[:, :3, :3]).inv() * Rotation.from_matrix(b[:, :3, :3])
    assert np.allclose(deltas.rotation_degrees, np.degrees(turns.magnitude()), atol=1e-9)
    assert np.allclose(deltas.position, np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1))


def test_pose_deltas_are_nan_where_either_pose_is_absent_and_nowhere_else() -> None:
    a, b = poses(4, 1), poses(4, 2)
    a[1, 0, 0], b[2] = np.nan, np.inf
    deltas = pose_deltas(a, b)
    assert np.isnan(deltas.position).tolist() == [False, True, True, False]
    assert np.isnan(deltas.rotation_degrees).tolist() == [False, True, True, False]


@given(seed=st.integers(0, 1000), n=st.integers(1, 12))
def test_similarity_is_the_cosine_of_sklearn_and_blind_to_length(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 7))
    assert np.allclose(similarity_matrix(rows), cosine_similarity(rows), atol=1e-12)
    assert np.allclose(similarity_matrix(rows), similarity_matrix(rows * rng.uniform(0.1, 9, (n, 1))), atol=1e-12)


def test_frames_without_an_embedding_are_similar_to_nobody() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 7))
    rows[1], rows[2] = np.nan, 0.0
    absent = np.isnan(similarity_matrix(rows))
    assert (absent == (np.isin(range(4), (1, 2))[:, None] | np.isin(range(4), (1, 2))[None])).all()


def test_reconstruction_deltas_are_root_mean_squares_per_part() -> None:
    part_of_entry = np.array([0, 0, 0, 0, 1, 1, 2])
    tokens = np.zeros((2, 7), dtype=np.float32)
    reconstruction = np.array([[1, 1, 1, 1, 3, 4, 7], [2, 0, 0, 0, 0, 0, 0]], dtype=np.float32)
    present = np.array([[True, True, True], [True, True, False]])
    deltas = reconstruction_deltas(tokens, reconstruction, part_of_entry, present)
    assert np.allclose(deltas, [[1.0, np.sqrt(12.5), 7.0], [1.0, 0.0, np.nan]], equal_nan=True)


def test_attention_received_of_an_even_share_is_one() -> None:
    figure = plot_attention_heatmap(np.full((2, 3, 5, 5), 0.2), names(5))
    marks = [one for one in figure.axes[0].collections if isinstance(one, PathCollection) and len(one.get_offsets())]
    assert np.allclose(np.asarray(marks[0].get_offsets())[:, 1], 1.0)


def test_rows_look_and_columns_are_looked_at() -> None:
    attention = np.zeros((1, 1, 4, 4))
    attention[..., 2] = 1.0  # everybody looks at frame 2
    figure = plot_attention_heatmap(attention, names(4))
    heights = {round(x): y for one in figure.axes[0].collections if isinstance(one, PathCollection)
               for x, y in np.asarray(one.get_offsets())}  # fmt: skip
    assert heights[2] == pytest.approx(4.0) and heights[0] == 0.0
