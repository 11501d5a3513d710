"""Compare the content of a frame, per cell, with views on both sides of it.

A point that two frames see and that lies, as seen from it, with a third frame's camera between theirs ought to be seen
by the third as well, unless something stands before it or it was moved. A point beside the two would prove nothing:
parallax hides it as naturally. So the claim is made only between two views, and by colour, since a keypoint may be
missed for many reasons.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from mtcm_nerfstudio.evidence.cell_colours import smoothed, unmatched_colour
from mtcm_nerfstudio.evidence.keypoints import GRID, LONGER_SIDE, THUMBNAIL, cell_of
from mtcm_nerfstudio.evidence.pair_graph import solve_pairwise_offsets
from mtcm_nerfstudio.evidence.pair_table import CELLS, FrameTable, PairTable
from mtcm_nerfstudio.geometry.bearings import has_bearings, pixels_from_bearings, widest_angle
from mtcm_nerfstudio.geometry.epipolar import MatchedBearings, triangulate_midpoints

_POINTS = 40
"""Points of a pair that are looked for in the frames between."""
_TOLERANCE = 0.25
"""Difference of two logarithms of a colour that is half a contradiction."""
_DARK = 6.0
"""Added to grey levels before the logarithm: noise of dark pixels must not count as colour."""
_MOST_BETWEEN = 200_000
"""Most (pair, frame) combinations that are looked at; of more, evenly spread ones are taken."""


@dataclass(frozen=True, eq=False)
class Content:
    """How a frame's content compares with that of the views around it."""

    difference: Float[np.ndarray, "frame cell"]
    """How different each cell is from what views on both sides show there, in [0, 1]; 0 where nothing is expected."""
    expected: Float[np.ndarray, "frame cell"]
    """Number of points that ought to be seen in each cell."""
    pair_difference: Float[np.ndarray, " pair"]
    """Mean difference of the points that the two frames of a pair ought to share, in [0, 1]."""
    pair_points: Float[np.ndarray, " pair"]
    """Number of those points."""
    log_gain: Float[np.ndarray, "frame 3"]
    """Logarithm of red, green and blue over the capture's usual, at matched points."""
    unmatched: Float[np.ndarray, "frame cell"]
    """How far the colour of each cell is from what matched frames show there, in [0, 1]; see ``cell_colours``."""


class _Between(NamedTuple):
    """Frames that may lie between the two frames of a pair."""

    pair: Int[np.ndarray, " ask"]
    frame: Int[np.ndarray, " ask"]


def compare_content(
    table: PairTable,
    matched: MatchedBearings,
    inlier: Bool[np.ndarray, "pair match"],
    c2w: Float[np.ndarray, "frame 4 4"],
    weight: Float[np.ndarray, " pair"],
) -> Content:
    """Look for the points of every pair in the frames between its two.

    Args:
        table: of the pairs in ``matched``.
        matched: sampled matches.
        inlier: matches that obey the claimed poses.
        c2w: OpenCV camera-to-world, identity for frames without a pose (none of their matches is valid).
        weight: how much each pair counts.
    """
    colours = _Colours(table.frames)
    pixel = _own_pixels(table, matched)
    first, second = table.pairs.T
    colour = np.stack([colours.at(first[:, None], pixel[:, 0])[0], colours.at(second[:, None], pixel[:, 1])[0]], axis=1)
    log_gain = _log_gains(table, colour, matched.valid, weight)
    points, _ = triangulate_midpoints(matched, c2w)
    points = np.where(inlier[..., None], points, np.nan)
    ask = _frames_between(table, np.isfinite(points).any(axis=(1, 2)))
    corrected = colour - log_gain[table.pairs][:, :, None]
    found = _accumulate(table, ask, _Points(points, corrected), c2w, log_gain, colours)
    return replace(found, unmatched=unmatched_colour(table, pixel, matched.valid))


class _Points(NamedTuple):
    place: Float[np.ndarray, "pair match 3"]
    colour: Float[np.ndarray, "pair two match 3"]
    """As the two frames of the pair see it, gains taken out."""


class _Colours:
    """Logarithms of the thumbnails' colours, smoothed a little, with how much they vary around each pixel; masks."""

    def __init__(self, frames: FrameTable) -> None:
        values = np.log(frames.thumbnails[..., :3].astype(np.float32) + _DARK)
        self.allowed = frames.thumbnails[..., 3] > 0
        self.mean, square = (smoothed(one, 3) for one in (values, values * values))
        self.variance = np.maximum(square - self.mean * self.mean, 0.0).mean(axis=-1)
        self.size = frames.size

    def at(
        self, frame: Int[np.ndarray, "*n"], pixel: Float[np.ndarray, "*m 2"]
    ) -> tuple[Float[np.ndarray, "*m 3"], Float[np.ndarray, "*m"]]:
        """Return colour and variance at pixels (of a longer side of 1000); those outside give the nearest inside."""
        row, column = self._nearest(frame, pixel)
        return self.mean[frame, row, column], self.variance[frame, row, column]

    def inside_mask(self, frame: Int[np.ndarray, "*n"], pixel: Float[np.ndarray, "*m 2"]) -> Bool[np.ndarray, "*m"]:
        """Return which pixels the frame's mask lets through."""
        row, column = self._nearest(frame, pixel)
        return self.allowed[frame, row, column]

    def _nearest(
        self, frame: Int[np.ndarray, "*n"], pixel: Float[np.ndarray, "*m 2"]
    ) -> tuple[Int[np.ndarray, "*m"], Int[np.ndarray, "*m"]]:
        place = np.nan_to_num(pixel, nan=0.0, posinf=0.0, neginf=0.0) * THUMBNAIL / LONGER_SIDE
        limit = np.maximum(self.size[frame] - 1, 0)
        column, row = (np.clip(place[..., k].astype(int), 0, limit[..., k]) for k in range(2))
        return row, column


def _own_pixels(table: PairTable, matched: MatchedBearings) -> Float[np.ndarray, "pair two match 2"]:
    """Return where each frame of a pair sees its sampled matches, at a longer side of 1000."""
    frame = np.broadcast_to(table.pairs[:, :, None], matched.bearings.shape[:3])
    return _project(table.frames, frame.reshape(-1), matched.bearings.reshape(-1, 3)).reshape(*frame.shape, 2)


def _project(
    frames: FrameTable, frame: Int[np.ndarray, " n"], bearings: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 2"]:
    """Return where bearings are seen by each one's frame, at a longer side of 1000; frames of one camera together."""
    pixel = np.full((len(frame), 2), np.nan)
    cameras: dict[object, list[int]] = {}
    for i, intrinsics in enumerate(frames.intrinsics):
        if intrinsics is not None and has_bearings(intrinsics):
            cameras.setdefault(intrinsics, []).append(i)
    number = np.full(len(frames), len(cameras))
    for k, members in enumerate(cameras.values()):
        number[members] = k
    order = np.argsort(number[frame], kind="stable")
    ends = np.searchsorted(number[frame][order], np.arange(len(cameras) + 1))
    for members, start, end in zip(cameras.values(), ends[:-1], ends[1:], strict=True):
        intrinsics = frames.intrinsics[members[0]]
        assert intrinsics is not None
        rows = order[start:end]
        unit = LONGER_SIDE / max(intrinsics.width, intrinsics.height)
        pixel[rows] = pixels_from_bearings(bearings[rows], intrinsics) * unit
        # A distortion model is fitted inside the image only; outside it may fold bearings back into the image.
        beyond = bearings[rows, 2] < np.cos(widest_angle(intrinsics)) * np.linalg.norm(bearings[rows], axis=1)
        pixel[rows[beyond]] = np.nan
    return pixel


def _log_gains(
    table: PairTable,
    colour: Float[np.ndarray, "pair two match 3"],
    valid: Bool[np.ndarray, "pair match"],
    weight: Float[np.ndarray, " pair"],
) -> Float[np.ndarray, "frame 3"]:
    """Return each frame's gain per channel: the offsets that explain how colours of matched points differ."""
    difference = np.where(valid[..., None], colour[:, 0] - colour[:, 1], np.nan)
    seen = valid.any(axis=1)
    gains = np.zeros((len(table), 3))
    if seen.any():
        median = np.full((len(table.pairs), 3), np.nan)
        median[seen] = np.nanmedian(difference[seen], axis=1)
        for channel in range(3):
            offsets = solve_pairwise_offsets(table.pairs, median[:, channel], weight * seen, len(table))
            gains[:, channel] = offsets
    return gains


def _frames_between(table: PairTable, useful: Bool[np.ndarray, " pair"]) -> _Between:
    """Return, for every pair with points, the frames that both of its frames were compared with."""
    count = len(table)
    i, j = table.pairs.T
    ones = np.ones(2 * len(i), dtype=np.int8)
    near = csr_array((ones, (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(count, count))
    index = np.flatnonzero(useful)
    if not len(index):
        return _Between(index, index)
    row, frame = (near[i[index]] * near[j[index]]).nonzero()
    pair = index[row]
    if len(pair) > _MOST_BETWEEN:
        some = np.linspace(0, len(pair) - 1, _MOST_BETWEEN).astype(int)
        pair, frame = pair[some], frame[some]
    return _Between(pair, frame)


def _accumulate(
    table: PairTable,
    ask: _Between,
    points: _Points,
    c2w: Float[np.ndarray, "frame 4 4"],
    log_gain: Float[np.ndarray, "frame 3"],
    colours: _Colours,
) -> Content:
    """Compare every point with what the frames between show in its place, and add up by cell and by pair."""
    count = len(table)
    some = np.unique(np.linspace(0, points.place.shape[1] - 1, _POINTS).astype(int))
    place = points.place[ask.pair][:, some]
    between, pixel = _between_and_seen(table, ask, place, c2w)
    row, match = np.nonzero(between)
    shown = colours.inside_mask(ask.frame[row], pixel[row, match])
    row, match = row[shown], match[shown]
    frame, pair = ask.frame[row], ask.pair[row]
    own, variance = colours.at(frame, pixel[row, match])
    own = own - log_gain[frame]
    theirs = points.colour[pair, :, some[match]]
    apart = np.square(theirs[:, 0] - theirs[:, 1]).mean(axis=-1)
    off = np.square(own - theirs.mean(axis=1)).mean(axis=-1)
    ratio = off / (_TOLERANCE**2 + apart + variance)
    difference = ratio / (1.0 + ratio)
    cell = frame * CELLS + cell_of(pixel[row, match])
    expected = np.bincount(cell, minlength=count * CELLS).reshape(count, CELLS)
    total = np.bincount(cell, difference, count * CELLS).reshape(count, CELLS)
    by_pair, pair_points = _by_pair(table, frame, pair, difference)
    nothing = np.zeros((count, CELLS))
    return Content(total / (expected + 1.0), expected.astype(np.float64), by_pair, pair_points, log_gain, nothing)


def _between_and_seen(
    table: PairTable, ask: _Between, place: Float[np.ndarray, "ask match 3"], c2w: Float[np.ndarray, "frame 4 4"]
) -> tuple[Bool[np.ndarray, "ask match"], Float[np.ndarray, "ask match 2"]]:
    """Tell which points a frame sees from between the two cameras, inside its image, and where."""
    camera = c2w[ask.frame]
    towards = place - camera[:, None, :3, 3]
    bearing = np.einsum("aji,amj->ami", camera[:, :3, :3], towards)
    known = np.isfinite(bearing).all(axis=-1)
    pixel = np.full((*known.shape, 2), np.nan)
    row, _ = np.nonzero(known)
    pixel[known] = _project(table.frames, ask.frame[row], bearing[known])
    size = table.frames.size[ask.frame] * LONGER_SIDE / THUMBNAIL
    with np.errstate(invalid="ignore"):
        inside = ((pixel >= 0) & (pixel < size[:, None])).all(axis=-1)
        own = -_unit(towards)
        sides = [_unit(c2w[table.pairs[ask.pair, k], None, :3, 3] - place) - own for k in range(2)]
        between = (sides[0] * sides[1]).sum(axis=-1) < 0
    return inside & between & known, pixel


def _by_pair(
    table: PairTable,
    frame: Int[np.ndarray, " seen"],
    pair: Int[np.ndarray, " seen"],
    difference: Float[np.ndarray, " seen"],
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Return mean difference and number of points between a frame and each of the two that it lies between."""
    count = len(table)
    known = table.pairs[:, 0] * count + table.pairs[:, 1]
    total, points = np.zeros(len(known)), np.zeros(len(known))
    for side in range(2):
        ends = np.sort(np.stack([frame, table.pairs[pair, side]], axis=1), axis=1)
        at = np.searchsorted(known, ends[:, 0] * count + ends[:, 1])
        total += np.bincount(at, difference, len(known))
        points += np.bincount(at, minlength=len(known))
    return total / np.maximum(points, 1.0), points


def _unit(vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def largest_block(cells: Float[np.ndarray, "frame cell"], side: int = 3) -> Float[np.ndarray, " frame"]:
    """Return the largest mean over a square block of neighbouring cells."""
    grid = cells.reshape(-1, GRID, GRID)
    starts = range(GRID - side + 1)
    blocks = [
        grid[:, row : row + side, column : column + side].mean(axis=(1, 2)) for row in starts for column in starts
    ]
    return np.max(blocks, axis=0) if len(grid) else np.zeros(0)
