"""Whether each cell of a frame has the colour that the frames matched with it show there.

Where a cell lies in another frame follows from the matches around it. Parallax moves things a little, so the best of
several places near by counts; something that stands before the camera has its colour in no other frame, so of all
frames that see a cell the second best counts. Unlike ``content`` this asks no poses, and claims less.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.ndimage import uniform_filter1d

from mtcm_nerfstudio.evidence.keypoints import GRID, LONGER_SIDE, THUMBNAIL
from mtcm_nerfstudio.evidence.pair_table import CELLS, PairTable

_CELL = LONGER_SIDE / GRID
_REACH = 1.2 * _CELL
"""Distance, in pixels, at which a match counts little for where a cell lies in the other frame."""
_SEARCH = 40.0
"""Step, in pixels, of the places around it that are tried."""
_SMOOTHED = 5
"""Pixels of the thumbnail over which colours are averaged."""
_DARK = 6.0
_TOLERANCE = 0.2
"""Difference of two logarithms of a colour that is half a contradiction."""
_FEWEST = 8
_PRIOR = 0.5
"""Weight, in matches, of the affine map that fits the whole pair."""
_CHUNK = 512


def unmatched_colour(
    table: PairTable, pixels: Float[np.ndarray, "pair two match 2"], valid: Bool[np.ndarray, "pair match"]
) -> Float[np.ndarray, "frame cell"]:
    """Return how far the colour of each cell is from what the frames matched with it show there, in [0, 1].

    Zero outside of the image and of its mask, and where fewer than two frames see the cell.

    Args:
        table: pairs and thumbnails.
        pixels: where the two frames of each pair see the sampled matches, at a longer side of 1000.
        valid: matches that there are.
    """
    rows = np.flatnonzero(valid.sum(axis=1) >= _FEWEST)
    colours = smoothed(np.log(table.frames.thumbnails[..., :3].astype(np.float32) + _DARK), _SMOOTHED)
    found, frames = [], []
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        for own, other in ((0, 1), (1, 0)):
            place = _mapped_cells(pixels[some, own], pixels[some, other], valid[some])
            pair = table.pairs[some]
            found.append(_differences(table, colours, pair[:, own], pair[:, other], place))
            frames.append(pair[:, own])
    if not found:
        return np.zeros((len(table), CELLS))
    return _second_smallest(np.concatenate(found), np.concatenate(frames), len(table))


def _cell_centres() -> Float[np.ndarray, "cell 2"]:
    row, column = np.divmod(np.arange(CELLS), GRID)
    return (np.stack([column, row], axis=1) + 0.5) * _CELL


def _mapped_cells(
    own: Float[np.ndarray, "pair match 2"],
    other: Float[np.ndarray, "pair match 2"],
    valid: Bool[np.ndarray, "pair match"],
) -> Float[np.ndarray, "pair cell 2"]:
    """Return where the first's cells lie in the second: by an affine map, bent to the matches near by."""
    own, other = (np.where(valid[..., None], np.nan_to_num(side), 0.0) / LONGER_SIDE for side in (own, other))
    weight = valid.astype(np.float64)
    source = np.concatenate([own, weight[..., None]], axis=-1)  # x, y, 1; zeros where there is no match
    normal = np.swapaxes(source, 1, 2) @ source + 1e-4 * np.eye(3)
    affine = np.linalg.solve(normal, np.swapaxes(source, 1, 2) @ other)
    off = (other - source @ affine) * weight[..., None]
    cells = _cell_centres() / LONGER_SIDE
    square = ((cells[None, :, None] - own[:, None]) ** 2).sum(axis=-1)
    near = np.exp(-0.5 * square / (_REACH / LONGER_SIDE) ** 2) * weight[:, None]
    bend = near @ off / (near.sum(axis=-1, keepdims=True) + _PRIOR)
    straight = np.concatenate([cells, np.ones((CELLS, 1))], axis=1) @ affine
    return (straight + bend) * LONGER_SIDE


def smoothed(values: Float32[np.ndarray, "frame h w 3"], side: int) -> Float32[np.ndarray, "frame h w 3"]:
    """Return images averaged over squares."""
    for axis in (1, 2):
        values = uniform_filter1d(values, side, axis=axis, mode="nearest") if len(values) else values
    return values


def _differences(
    table: PairTable,
    colours: Float[np.ndarray, "frame h w 3"],
    own: Int[np.ndarray, " pair"],
    other: Int[np.ndarray, " pair"],
    place: Float[np.ndarray, "pair cell 2"],
) -> Float[np.ndarray, "pair cell"]:
    """Return the difference of each cell from the most similar place around where it should be; NaN outside."""
    centre = np.broadcast_to(_cell_centres(), place.shape)
    mine, here = _sample(table, colours, own, centre)
    middle, there = _sample(table, colours, other, place)
    known = here & there
    off = np.where(known[..., None], mine - middle, np.nan)
    off[~known.any(axis=1)] = 0.0  # the median of nothing is a warning
    gain = np.nanmedian(off, axis=1, keepdims=True)
    best = np.full(known.shape, np.inf)
    for x in (-_SEARCH, 0.0, _SEARCH):
        for y in (-_SEARCH, 0.0, _SEARCH):
            theirs, _ = _sample(table, colours, other, place + np.array([x, y]))
            best = np.minimum(best, np.square(mine - theirs - gain).mean(axis=-1))
    ratio = best / _TOLERANCE**2
    return np.where(known, ratio / (1.0 + ratio), np.nan)


def _sample(
    table: PairTable,
    colours: Float[np.ndarray, "frame h w 3"],
    frame: Int[np.ndarray, " pair"],
    place: Float[np.ndarray, "pair cell 2"],
) -> tuple[Float[np.ndarray, "pair cell 3"], Bool[np.ndarray, "pair cell"]]:
    """Return the colours at places, and which of these lie in image and mask; others give the nearest in the image."""
    pixel = place * THUMBNAIL / LONGER_SIDE
    size = table.frames.size[frame][:, None]
    inside = ((pixel >= 0) & (pixel < size)).all(axis=-1)
    at = np.clip(pixel.astype(int), 0, np.maximum(size - 1, 0))
    where = (frame[:, None], at[..., 1], at[..., 0])
    return colours[where], inside & (table.frames.thumbnails[(*where, 3)] > 0)


def _second_smallest(
    values: Float[np.ndarray, "pair cell"], frame: Int[np.ndarray, " pair"], frames: int
) -> Float[np.ndarray, "frame cell"]:
    """Return every frame's second smallest value of each cell; 0 where it has less than two."""
    key = (frame[:, None] * CELLS + np.arange(CELLS)).ravel()
    flat = values.ravel()
    known = np.isfinite(flat)
    key, flat = key[known], flat[known]
    order = np.lexsort((flat, key))
    key, flat = key[order], flat[order]
    count = np.bincount(key, minlength=frames * CELLS)
    first = np.cumsum(count) - count
    at = np.minimum(first + 1, max(len(flat) - 1, 0))
    return np.where(count >= 2, flat[at] if len(flat) else 0.0, 0.0).reshape(frames, CELLS)
