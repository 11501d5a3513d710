"""Which of the places where a view may be missing are worth going to, in which order, and by how much."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.views.labels.look_at import angle_between
from mtcm_nerfstudio.views.suggestion.candidate_poses import (
    Poses,
    Views,
    distances,
    midpoint_poses,
    orbit_poses,
    path_gap_poses,
)
from mtcm_nerfstudio.views.suggestion.turntable import continue_turntable

_FEWEST = 4
"""Views from which a layout can be told."""
_SHARES_OF_SPACE = (0.1, 0.3, 1.0, 30.0)
"""How much places about the subject count beside those along the path; which one, the capture itself tells."""
_HIDDEN, _TRIALS = 0.2, 4
_SAME = 0.26
"""Distance (15°, a quarter of the spread) within which a suggestion stands for a view that was hidden."""
_LONGEST = 600
"""Views among which holes are looked for; of a longer capture, so many spread over it."""
_SPACINGS = 1.0
"""A suggestion is at least this many usual distances between neighbours away from every view."""
_LEAST_GAIN = 1e-6
"""Share of what is missing that a suggestion covers at least: what counts for nothing is not suggested for itself."""
_TOO_CLOSE = 0.3
"""Of the cameras' median distance from the subject: nearer stands inside it, more likely than not."""
_LOOKS_AWAY = 60.0
_NEAREST_POINTS, _CLEARANCE = 0.01, 0.5
"""The hundredth of all points that are nearest must be half as far as from the view that is closest to them."""
_CONE, _SEEN = 30.0, 0.3
"""Half the angle of view, and share of what a median view has in it, that a suggestion must see of the points."""
_MOST_POINTS = 5000
_WITNESSES = 3


@dataclass(frozen=True, eq=False)
class Suggestion:
    """A pose that is missing."""

    c2w: Float[np.ndarray, "4 4"]
    gain: float
    """Share of what the views leave uncovered that a view here would cover, in [0, 1]."""
    seen_best_by: tuple[int, ...]
    """The views that look most alike, nearest first."""


def suggest(
    c2w: Poses,
    most: int,
    infilled: Float[np.ndarray, "m 4 4"] | None = None,
    points: Float[np.ndarray, "p 3"] | None = None,
) -> tuple[Suggestion, ...]:
    """Suggest poses that would fill the holes between views.

    Candidates are places that should be covered, too. With d_j the distance from place j to the nearest view
    (shift in spreads and turn in radians, root of squares), what is missing is Σ w_j d_j². The candidate that takes
    most of it away comes first, then the one that takes most of the rest. Places along the path and about the subject
    share the weights w; how, is decided by hiding some of the views and seeing which way finds them again.

    Args:
        c2w: poses of the views, finite, in temporal order.
        most: number of suggestions; fewer where there are no more holes.
        infilled: further candidates, from the transformer.
        points: of the scene, in the same world; candidates inside them or that see none of them are left out.
    """
    if most < 1 or len(c2w) < _FEWEST:
        return ()
    some = np.unique(np.linspace(0, len(c2w) - 1, min(len(c2w), _LONGEST)).round().astype(int))
    views = Views.of(c2w[some])
    places = _Candidates.of(views, most, infilled)
    places = places.only(is_valid_viewpoint(places.c2w, views, points))
    chosen, gains = places.select_greedily(views, most, _share_that_finds_hidden_views(views))
    distance = distances(views.coordinates(places.c2w[chosen]), views.coordinates(views.c2w))
    nearest = some[np.argsort(distance, axis=1, kind="stable")[:, :_WITNESSES]]
    return tuple(
        Suggestion(places.c2w[i], gain, tuple(int(j) for j in near))
        for i, gain, near in zip(chosen, gains, nearest, strict=True)
    )


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Candidates, and how much each counts as a place that should be covered."""

    c2w: Poses
    on_path: Float[np.ndarray, " n"]
    """Weight among those along the path, or around with it; zero for the others. What the transformer imagines has no
    weight at all: it is taken where it covers the others best."""
    in_space: Float[np.ndarray, " n"]
    """Weight among those about the subject, or beside the path; zero for the others."""

    @staticmethod
    def of(views: Views, most: int, infilled: Float[np.ndarray, "m 4 4"] | None = None) -> "_Candidates":
        path, turning = path_gap_poses(views, most), continue_turntable(views, most)
        others = np.zeros((0, 4, 4)) if infilled is None else infilled
        if views.subject is None:
            space = midpoint_poses(views)
            usual = np.full(len(space), 1.0 / max(len(space), 1))
        else:
            space, usual = orbit_poses(views, views.subject)
        on_path = np.concatenate([np.ones(len(path)), turning[1]])
        return _Candidates(
            np.concatenate([path, turning[0], space, others]),
            np.concatenate([on_path / max(on_path.sum(), 1.0), np.zeros(len(space) + len(others))]),
            np.concatenate([np.zeros(len(on_path)), usual, np.zeros(len(others))]),
        )

    def only(self, some: Bool[np.ndarray, " n"]) -> "_Candidates":
        return _Candidates(self.c2w[some], self.on_path[some], self.in_space[some])

    def select_greedily(self, views: Views, most: int, share_of_space: float) -> tuple[list[int], list[float]]:
        """Return the best candidates in order, and the share of what is missing that each makes up for."""
        if not len(self.c2w):
            return [], []
        weight = self.on_path + share_of_space * self.in_space
        here, seen = views.coordinates(self.c2w), views.coordinates(views.c2w)
        missing, spacing = np.square(distances(here, seen).min(axis=1)), _spacing(seen)
        counts = weight > 0
        distance = np.square(distances(here, here[counts]))
        everything = float(weight @ missing)
        chosen: list[int] = []
        gains: list[float] = []
        free = missing >= np.square(_SPACINGS * spacing)
        # What a candidate gains only falls as others are chosen: what it once gained is a bound (Minoux, 1978).
        gain = np.maximum(missing[counts] - distance, 0.0) @ weight[counts]
        since = np.zeros(len(gain), dtype=int)
        while len(chosen) < most and free.any() and everything > 0:
            best = int(np.where(free, gain, -1.0).argmax())
            if since[best] < len(chosen):
                gain[best] = np.maximum(missing[counts] - distance[best], 0.0) @ weight[counts]
                since[best] = len(chosen)
                continue
            if gain[best] < _LEAST_GAIN * everything:
                break
            chosen.append(best)
            gains.append(float(gain[best]) / everything)
            missing = np.minimum(missing, np.square(distances(here, here[best : best + 1])[:, 0]))
            free = missing >= np.square(_SPACINGS * spacing)
        return chosen, gains


def _spacing(points: Float[np.ndarray, "n d"]) -> float:
    """Return the median distance from a view to its nearest neighbour."""
    distance = distances(points, points)
    np.fill_diagonal(distance, np.inf)
    return float(np.median(distance.min(axis=1)))


def _share_that_finds_hidden_views(views: Views) -> float:
    """Return the share of places in space with which most hidden views are found, blocks of them hidden in turn."""
    points = views.coordinates(views.c2w)
    count = max(1, round(_HIDDEN * len(points)))
    if len(points) - count < _FEWEST:
        return _SHARES_OF_SPACE[2]
    found = np.zeros(len(_SHARES_OF_SPACE))
    for middle in np.linspace(0, len(points) - 1, _TRIALS + 2)[1:-1].round().astype(int).tolist():
        hidden = np.argsort(np.linalg.norm(points - points[middle], axis=1), kind="stable")[:count]
        rest = Views.of(np.delete(views.c2w, hidden, axis=0))
        places = _Candidates.of(rest, count)
        for k, share in enumerate(_SHARES_OF_SPACE):
            chosen, _ = places.select_greedily(rest, count, share)
            if chosen:
                distance = distances(points[hidden], views.coordinates(places.c2w[chosen])).min(axis=1)
                found[k] += np.exp(-0.5 * np.square(distance / _SAME)).sum()
    return _SHARES_OF_SPACE[int(found.argmax())]


def is_valid_viewpoint(
    c2w: Poses, views: Views, points: Float[np.ndarray, "p 3"] | None = None
) -> Bool[np.ndarray, " n"]:
    """Tell which poses do not stand inside what they look at, and look at it.

    Args:
        c2w: poses.
        views: the real ones.
        points: of the scene. Without any, the subject alone is asked, where there is one.
    """
    good = np.isfinite(c2w).all(axis=(1, 2))
    if views.subject is not None:
        away = c2w[:, :3, 3] - views.subject.point
        good &= np.linalg.norm(away, axis=1) > _TOO_CLOSE * views.subject.distance
        good &= angle_between(-c2w[:, :3, 2], -away) < _LOOKS_AWAY
    if points is None or len(points) < 1.0 / _NEAREST_POINTS:
        return good
    points = points[np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).astype(int)]
    clear, seen = _clearance_and_sight(c2w, points)
    usual_clear, usual_seen = _clearance_and_sight(views.c2w, points)
    return good & (clear > _CLEARANCE * usual_clear.min()) & (seen > _SEEN * np.median(usual_seen))


def _clearance_and_sight(
    c2w: Poses, points: Float[np.ndarray, "p 3"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return how far the nearest points are, and what share of all points lies ahead."""
    nearest = max(1, int(_NEAREST_POINTS * len(points)))
    clear, seen = np.empty(len(c2w)), np.empty(len(c2w))
    for i, pose in enumerate(c2w):
        way = points - pose[:3, 3]
        length = np.linalg.norm(way, axis=1)
        clear[i] = np.partition(length, nearest - 1)[nearest - 1]
        seen[i] = np.mean(way @ -pose[:3, 2] > np.cos(np.radians(_CONE)) * length)
    return clear, seen
