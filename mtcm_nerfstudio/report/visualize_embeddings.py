"""Maps of a capture: tokens and pose predictions laid out in the plane by t-SNE and by UMAP.

Frames that the model finds alike lie close together; distances between far groups mean little in either map. Both
start from the principal components and a fixed seed, so the same input gives the same picture.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from mtcm_nerfstudio.report.frame_axis import checked
from mtcm_nerfstudio.report.scatter import Map, map_figure

_FEWEST = 6
"""Fewer frames than this have no neighbourhoods to keep: their principal components say it all."""

Layout = Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n 2"]]


def plot_tsne(
    tokens: Float[np.ndarray, "n d"],
    pose_predictions: Float[np.ndarray, "n p"] | None,
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None = None,
    inconsistency: Float[np.ndarray, " n"] | None = None,
    labels: Sequence[str | None] | None = None,
    images: Sequence[Path] | None = None,
    seed: int = 0,
) -> Figure:
    """Lay out tokens (first row) and pose predictions (second row) by verdict, time and label, and in pictures.

    t-SNE is van der Maaten and Hinton's (JMLR 9, 2008), its perplexity 30 or a third of the other frames. With
    fewer than six frames the principal components are drawn, and the picture says so. Rows with a number that is
    not finite have no place on the map; the picture says how many.

    Args:
        tokens: any vector of each frame: its token, or its state in the last layer.
        pose_predictions: the pose that the model predicts for each frame (x, y, z, qw, qx, qy, qz), or None.
        file_paths: the frames' names, in temporal order.
        kept: which frames stay.
        inconsistency: probability in [0, 1] of not belonging; says which outliers are named first.
        labels: each frame's label in words, None where it has none.
        images: where each frame's image lies; some of them are drawn in their places.
        seed: of the layout.

    Raises:
        ValueError: no frames, or arrays of different lengths.
    """
    maps = _maps(tokens, pose_predictions, partial(tsne_layout, seed=seed), "t-SNE")
    return _figure("t-SNE", maps, file_paths, kept, inconsistency, labels, images)


def plot_umap(
    tokens: Float[np.ndarray, "n d"],
    pose_predictions: Float[np.ndarray, "n p"] | None,
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None = None,
    inconsistency: Float[np.ndarray, " n"] | None = None,
    labels: Sequence[str | None] | None = None,
    images: Sequence[Path] | None = None,
    seed: int = 0,
) -> Figure | None:
    """Do as ``plot_tsne`` with UMAP (McInnes et al., arXiv 1802.03426) of 15 neighbours, or all others if fewer.

    Returns None, with one line in the log, where the package ``umap-learn`` is not installed.

    Raises:
        ValueError: no frames, or arrays of different lengths.
    """
    if not umap_installed():
        logging.getLogger(__name__).warning("No UMAP picture: umap-learn is not installed (pip install umap-learn).")
        return None
    maps = _maps(tokens, pose_predictions, partial(umap_layout, seed=seed), "UMAP")
    return _figure("UMAP", maps, file_paths, kept, inconsistency, labels, images)


def umap_installed() -> bool:
    """Tell whether the optional package ``umap-learn`` is there."""
    return find_spec("umap") is not None


def tsne_layout(rows: Float[np.ndarray, "n d"], seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """Lay out finite rows by t-SNE; at least six of them, not all the same."""
    start = principal_components(rows)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    model = TSNE(perplexity=perplexity, init=1e-4 * start / start[:, 0].std(), random_state=seed)
    with threadpool_limits(1):  # threads that wait for each other take seconds over so few points on a busy machine
        return model.fit_transform(rows).astype(np.float64)


def umap_layout(rows: Float[np.ndarray, "n d"], seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """Lay out finite rows by UMAP; at least six of them, not all the same."""
    with warnings.catch_warnings():  # it says that it could do more if Tensorflow were there
        warnings.simplefilter("ignore", ImportWarning)
        from umap import UMAP  # optional, and its first import takes seconds

    start = principal_components(rows)
    start = (10 * start / np.abs(start).max()).astype(np.float32)
    model = UMAP(n_neighbors=min(15, len(rows) - 1), init=start, random_state=seed, n_jobs=1)
    with warnings.catch_warnings():  # numba mentions an old TBB and takes another way to run threads
        warnings.filterwarnings("ignore", message="The TBB threading layer")
        return np.asarray(model.fit_transform(rows), dtype=np.float64)


def principal_components(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Return the rows' first two principal components; the largest entry of each axis is positive."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.where(axes[np.arange(len(axes)), largest] < 0, -1.0, 1.0)[:, None]
    return np.pad(centred @ axes.T, ((0, 0), (0, 2 - len(axes))))


def _maps(
    tokens: Float[np.ndarray, "n d"], poses: Float[np.ndarray, "n p"] | None, layout: Layout, method: str
) -> list[Map]:
    maps = [_map("tokens", tokens, layout, method)]
    return maps if poses is None else [*maps, _map("predicted poses", poses, layout, method)]


def _map(name: str, rows: Float[np.ndarray, "n d"], layout: Layout, method: str) -> Map:
    """Lay out the rows that are finite; where they are too few, or all the same, by their principal components."""
    finite = np.isfinite(rows).all(axis=1)
    places = np.full((len(rows), 2), np.nan)
    usable = rows[finite].astype(np.float64)
    spread = usable.std(axis=0).max() if len(usable) else 0.0
    enough = len(usable) >= _FEWEST and spread > 1e-9 * max(1.0, np.abs(usable).max())
    if len(usable):
        places[finite] = layout(usable) if enough else principal_components(usable)
    if enough:
        return Map(name, method, places)
    return Map(name, "principal component", places, f"too few for {method}" if len(usable) < _FEWEST else "all alike")


def _figure(
    method: str,
    maps: Sequence[Map],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None,
    inconsistency: Float[np.ndarray, " n"] | None,
    labels: Sequence[str | None] | None,
    images: Sequence[Path] | None,
) -> Figure:
    words, paths = (None if one is None else np.array(one, dtype=object) for one in (labels, images))
    places = {one.name: one.places for one in maps}
    checked(file_paths, kept=kept, inconsistency=inconsistency, labels=words, images=paths, **places)
    return map_figure(maps, file_paths, kept, inconsistency, labels, images, f"Frames by likeness ({method})")
