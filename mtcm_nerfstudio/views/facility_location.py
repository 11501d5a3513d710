"""Select views under a budget by facility location.

Every frame is a point x_i: where its camera stands and looks, what the transformer makes of it, and when it was taken.
What views are for lies between them, so the places y_j that are to be served are half-way between neighbours, each
counting (w_j) as much as these are apart, up to three usual steps: one half of the weight is shared by neighbours along
the path, the other by neighbours in space (the edges of a minimum spanning tree, among each one's 16 nearest), as paths
cross themselves and photographs may be in no order. Were the places the frames themselves, every frame would serve
itself for nothing, and those in the middle of a crowd would be taken. A set S of kept frames serves a place as well as
its best member does, and is worth

    F(S) = Σ_j w_j max_{i ∈ S} max(0, 1 − (‖x_i − y_j‖ + u · ln(1 / q_i) / 4) / R) / Σ_j w_j,

with q the frames' quality, R the radius of the whole capture, and u how far a place is from the nearest of as many
frames evenly spread: a frame that is worse counts as if it stood farther off, on the scale on which there is a choice.
(A factor q in front would weigh whole captures against a blur, and the sharpest frames would be taken wherever they
stand.) This is facility location, which is monotone and submodular.

So adding the frame that gains most, again and again, comes within 1 − 1/e of the best set of that size (Nemhauser,
Wolsey and Fisher, 1978), and a gain can only shrink as S grows: a frame whose old gain is below another's present one
need not be looked at again (Minoux, 1978). What is chosen is the same as without that shortcut. Where a number is asked
for, and the capture is not too long, members are then exchanged for others as long as that makes the set worth more
(PAM, all exchanges at once as by Schubert and Rousseeuw, 2019).
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import KDTree
from sklearn.decomposition import PCA

from mtcm_nerfstudio.geometry.poses import canonical_frame, far_away, nearest_rotation

_LEARNED_DIMENSIONS = 16
_LEARNED_WEIGHT, _TIME_WEIGHT = 0.2, 0.05
"""Root mean square distance that the learned embedding and the time add, in the spread of the cameras."""
_PLACES = 2048
"""Frames whose neighbourhoods stand for all of a longer capture; all frames are still there to choose from."""
_NEIGHBOURS = 16
_LONGEST_STEP = 3.0
"""Places between neighbours count at most so many times as much as the usual one: a jump of the path is one place."""
_WORSE = 0.25
"""How much farther off, in spacings, a frame counts whose quality is less by a factor of e."""
_EXCHANGES = 4_000_000
"""Frames × places up to which members are exchanged."""
_ROWS_AT_ONCE = 1024
_GAINS_AT_ONCE = 32
_LEAST_GAIN = 1e-6
_EVENLY = 512
"""Evenly spread frames at most by which distances are judged."""
_SMOOTHNESS = 0.1
_SAME_PLACE, _SAME_TURN, _SAME_LOOK = 0.01, np.radians(1.0), 0.98
"""Shift in spreads of the cameras, turn in radians, and cosine of image embeddings within which frames are one."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Frames in the order in which they were chosen."""

    chosen: Int[np.ndarray, " k"]
    coverage: Float[np.ndarray, " k"]
    """F of the frames chosen so far over F of all candidates, in [0, 1]."""


def facility_location(
    points: Float[np.ndarray, "frame d"],
    quality: Float[np.ndarray, " frame"],
    most: int | None = None,
    coverage: float | None = None,
    first: Int[np.ndarray, " some"] | None = None,
    fewest: int = 1,
) -> Selection:
    """Choose frames until there are ``most``, or until they serve ``coverage`` of what all of them would.

    Takes time and memory of the order of frames × places, with less than 4,096 places.

    Args:
        points: of the candidates, see ``view_points``.
        quality: of the candidates, in (0, 1].
        most: how many to choose.
        coverage: F(chosen) / F(all candidates) that is enough, in (0, 1].
        first: candidates that are chosen before all others.
        fewest: how many to choose at least (where there are as many), whatever they serve.
    """
    service = _FacilityLocation(points.astype(np.float32), quality.astype(np.float32), most)
    everything = service.of_all()
    best = np.zeros(len(service.places), dtype=np.float32)
    chosen: list[int] = []
    worth: list[float] = []

    def add(i: int) -> None:
        np.maximum(best, service.rows(np.array([i]))[0], out=best)
        chosen.append(i)
        worth.append(service.worth(best) / everything if everything > 0 else 1.0)

    for i in [] if first is None else first.tolist():
        add(i)
    left = np.setdiff1d(np.arange(len(points)), chosen)
    fixed = len(chosen)
    heap = [(-gain, int(i)) for gain, i in zip(service.gains(left, best), left, strict=True)]
    heapq.heapify(heap)
    limit = len(points) if most is None else min(most, len(points))
    while heap and len(chosen) < limit and (coverage is None or len(chosen) < max(fewest, 1) or worth[-1] < coverage):
        add(_next_best(heap, service, best))
    if coverage is None:
        final = _exchanged(service, chosen, fixed)
        best[:], chosen, worth = 0.0, [], []
        for i in final:
            add(i)
    return Selection(np.array(chosen, dtype=int), np.array(worth))


def _exchanged(service: "_FacilityLocation", chosen: list[int], fixed: int) -> list[int]:
    """Exchange members for frames that are not, the best exchange first, as long as the set is worth more for it.

    Args:
        service: of all frames.
        chosen: the members, those that are to stay first.
        fixed: how many are to stay.
    """
    if len(chosen) == fixed or len(service.points) * len(service.places) > _EXCHANGES:
        return chosen
    rows, members = service.rows(np.arange(len(service.points))), np.array(chosen)
    while True:
        own = rows[members]
        first, every = own.argmax(axis=0), np.arange(own.shape[1])
        most = own[first, every]
        own[first, every] = 0.0
        second = own.max(axis=0)
        with_it = np.maximum(rows, most)
        lost = (with_it - np.maximum(rows, second)) * service.weight  # where the member that goes had been the best
        of_member = np.eye(len(members), dtype=np.float32)[first]
        gain = ((with_it - most) @ service.weight)[:, None] - lost @ of_member
        gain[:, :fixed] = -np.inf
        new, member = np.unravel_index(gain.argmax(), gain.shape)
        if gain[new, member] <= _LEAST_GAIN:
            return members.tolist()
        members[member] = new


def _next_best(heap: list[tuple[float, int]], service: "_FacilityLocation", best: Float[np.ndarray, " place"]) -> int:
    """Take the candidate of the largest gain from a heap of (−gain, candidate) that were true once."""
    fresh: dict[int, float] = {}
    while True:
        gain, i = heap[0]
        if fresh.get(i) == gain:
            heapq.heappop(heap)
            return i
        stale = [heapq.heappop(heap)[1] for _ in range(min(_GAINS_AT_ONCE, len(heap)))]
        for candidate, now in zip(stale, service.gains(np.array(stale), best), strict=True):
            fresh[candidate] = -now
            heapq.heappush(heap, (-now, candidate))


class _FacilityLocation:
    """How well each frame serves each place."""

    def __init__(
        self, points: Float[np.ndarray, "frame d"], quality: Float[np.ndarray, " frame"], most: int | None
    ) -> None:
        self.points = points
        self.places, self.weight = _between(points)
        centre = np.median(points, axis=0)
        self._radius = max(float(2.0 * np.quantile(np.linalg.norm(points - centre, axis=1), 0.95)), 1e-6)
        self._squares = np.square(self.places).sum(axis=1)
        evenly = np.linspace(0, len(points) - 1, min(len(points) if most is None else most, len(points), _EVENLY))
        spacing = float(self._distances(np.unique(evenly.round().astype(int))).min(axis=0).mean())
        self._farther = _WORSE * spacing * np.log(1.0 / quality)

    def _distances(self, candidates: Int[np.ndarray, " some"]) -> Float[np.ndarray, "some place"]:
        """Return how far candidates are from every place."""
        points = self.points[candidates]
        squares = np.square(points).sum(axis=1)[:, None] + self._squares - 2.0 * points @ self.places.T
        return np.sqrt(np.maximum(squares, 0.0))

    def rows(self, candidates: Int[np.ndarray, " some"]) -> Float[np.ndarray, "some place"]:
        """Return how well candidates serve every place."""
        far = self._distances(candidates) + self._farther[candidates, None]
        return np.maximum(1.0 - far / self._radius, 0.0)

    def gains(self, candidates: Int[np.ndarray, " some"], best: Float[np.ndarray, " place"]) -> list[float]:
        """Return what each candidate would add to what serves the places best so far."""
        out: list[float] = []
        for start in range(0, len(candidates), _ROWS_AT_ONCE):
            rows = self.rows(candidates[start : start + _ROWS_AT_ONCE])
            out += (np.maximum(rows - best, 0.0) @ self.weight).tolist()
        return out

    def worth(self, best: Float[np.ndarray, " place"]) -> float:
        """Return F, given how well each place is served."""
        return float(best @ self.weight)

    def of_all(self) -> float:
        """Return F of all candidates together."""
        best = np.zeros(len(self.places), dtype=np.float32)
        for start in range(0, len(self.points), _ROWS_AT_ONCE):
            candidates = np.arange(start, min(start + _ROWS_AT_ONCE, len(self.points)))
            np.maximum(best, self.rows(candidates).max(axis=0), out=best)
        return self.worth(best)


def _between(points: Float[np.ndarray, "frame d"]) -> tuple[Float[np.ndarray, "place d"], Float[np.ndarray, " place"]]:
    """Return the places half-way between neighbours, and how much each counts; the shares add up to one."""
    some = points[np.linspace(0, len(points) - 1, min(len(points), _PLACES)).astype(int)]
    if len(some) < 2:
        return some, np.ones(len(some), dtype=np.float32)
    along = np.arange(len(some) - 1), np.arange(1, len(some))
    pairs = [along, _neighbours_in_space(some)]
    places, weights = [], []
    for one, other in pairs:
        length = np.linalg.norm(some[one] - some[other], axis=1) + 1e-12
        counted = np.minimum(length, _LONGEST_STEP * np.median(length))
        places.append(0.5 * (some[one] + some[other]))
        weights.append(counted / counted.sum() / len(pairs))
    return np.concatenate(places).astype(np.float32), np.concatenate(weights).astype(np.float32)


def _neighbours_in_space(
    points: Float[np.ndarray, "frame d"],
) -> tuple[Int[np.ndarray, " edge"], Int[np.ndarray, " edge"]]:
    """Return the ends of the edges of a minimum spanning tree among each point's nearest ones."""
    count = min(_NEIGHBOURS, len(points) - 1)
    apart, near = (np.asarray(found) for found in KDTree(points).query(points, count + 1))
    length = apart[:, 1:].ravel() + 1e-6 * apart.max() + 1e-12  # one of 0 would be no edge
    ends = np.repeat(np.arange(len(points)), count), near[:, 1:].ravel()
    tree = minimum_spanning_tree(coo_array((length, ends), shape=(len(points), len(points))).tocsr()).tocoo()
    return tree.row, tree.col


def view_points(
    c2w: Float[np.ndarray, "frame 4 4"],
    states: Float[np.ndarray, "frame dim"],
) -> Float[np.ndarray, "frame d"]:
    """Return the points between which views are compared, in spreads of the cameras.

    Position over the cameras' spread, and line of sight (so far apart are two cameras that look at one subject from
    either side of it, whichever of the two is counted); then the 16 main directions of the learned embedding, and the
    rank in time. What a frame lacks, it has in the middle.

    Args:
        c2w: poses in temporal order; NaN where there is none.
        states: the transformer's, NaN where a frame was not read.
    """
    posed = np.isfinite(c2w).all(axis=(1, 2))
    parts = [np.linspace(0.0, 1.0, len(c2w))[:, None] * (_TIME_WEIGHT * np.sqrt(12.0))]
    near = posed.copy()
    near[posed] = ~far_away(c2w[posed, :3, 3])
    if near.sum() > 1:
        position, sight = np.zeros((len(c2w), 3)), np.zeros((len(c2w), 3))
        placed = c2w[near].astype(np.float64)
        own = canonical_frame(placed).to_capture(placed)
        position[near] = own[:, :3, 3]
        sight[near] = -nearest_rotation(own[:, :3, :3])[:, :, 2]
        sight[~near] = sight[near].mean(axis=0)
        parts += [position, sight]
    read = np.isfinite(states).all(axis=1)
    if read.sum() > 2:
        learned = np.zeros((len(c2w), min(_LEARNED_DIMENSIONS, int(read.sum()) - 1, states.shape[1])))
        learned[read] = PCA(learned.shape[1], random_state=0).fit_transform(states[read].astype(np.float64))
        size = np.sqrt(np.square(learned[read]).sum(axis=1).mean())
        parts.append(learned * (_LEARNED_WEIGHT / max(float(size), 1e-9)))
    return np.concatenate(parts, axis=1)


def view_quality(
    inconsistency: Float[np.ndarray, " frame"],
    evidence: tuple[Mapping[str, float], ...],
    c2w: Float[np.ndarray, "frame 4 4"],
) -> Float[np.ndarray, " frame"]:
    """Return how good each frame is to have, in (0, 1].

    It is the probability that the frame is consistent, times the root of how sharp it is beside those that see the
    same (at most 1), times what a jump in the camera's path takes away, a tenth at most.
    """
    blur = np.array([min(0.0, one.get("log_sharpness_over_partners", 0.0)) for one in evidence])
    steady = 1.0 - _SMOOTHNESS * (1.0 - _smoothness(c2w))
    return np.clip((1.0 - np.nan_to_num(inconsistency, nan=0.5)) * np.exp(0.5 * blur) * steady, 1e-3, 1.0)


def _smoothness(c2w: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, " frame"]:
    """Return 1 where a camera moves on as before, towards 0 where it jumps by many times the usual; 1 at the ends."""
    position = c2w[:, :3, 3]
    jump = np.zeros(len(c2w))
    if len(c2w) > 2:
        jump[1:-1] = np.linalg.norm(position[2:] - 2.0 * position[1:-1] + position[:-2], axis=1)
    jump = np.nan_to_num(jump)
    usual = float(np.median(jump[1:-1])) if len(c2w) > 2 else 0.0
    return 1.0 / (1.0 + np.square(jump / (3.0 * usual))) if usual > 0 else np.ones(len(c2w))


def best_of_duplicates(
    c2w: Float[np.ndarray, "frame 4 4"],
    embeddings: Float[np.ndarray, "frame 384"],
    quality: Float[np.ndarray, " frame"],
    candidates: Bool[np.ndarray, " frame"],
) -> Int[np.ndarray, " frame"]:
    """Return, for every frame, the best one that shows the same from the same place (itself, where there is none).

    Frames are the same where the camera moved by less than a hundredth of its spread, turned by less than 1°, and
    the image embeddings' cosine is above 0.98.
    """
    leader = np.arange(len(c2w))
    posed = np.flatnonzero(candidates & np.isfinite(c2w).all(axis=(1, 2)) & np.isfinite(embeddings).all(axis=1))
    if len(posed) < 2:
        return leader
    placed = c2w[posed].astype(np.float64)
    own = canonical_frame(placed).to_capture(placed)
    axes = nearest_rotation(own[:, :3, :3])[:, :, 1:].reshape(len(posed), 6) / np.sqrt(2.0)
    # A turn by a moves the three axes by a·√2 together, and any two of them by a at least.
    tree = KDTree(np.concatenate([own[:, :3, 3] * (_SAME_TURN / _SAME_PLACE), axes], axis=1))
    look = embeddings[posed] / np.linalg.norm(embeddings[posed], axis=1, keepdims=True)
    taken = np.zeros(len(posed), dtype=bool)
    for i in np.argsort(-quality[posed], kind="stable"):
        if taken[i]:
            continue
        around = np.array(tree.query_ball_point(tree.data[i], _SAME_TURN), dtype=int)
        same = around[~taken[around] & (look[around] @ look[i] > _SAME_LOOK)]
        taken[same] = True
        leader[posed[same]] = posed[i]
    return leader
