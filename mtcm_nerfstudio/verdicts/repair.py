"""Repair wrong poses: triangulate from trusted frames, PnP with RANSAC, bundle adjustment.

Points that a suspect shares with trusted frames are triangulated from these, the suspect's camera is put where it sees
them as it does (PnP with RANSAC), and camera and points are refined together (bundle adjustment in which every camera
but the suspect's is held). A repaired frame counts as trusted in the next round, so that a run of frames that were
moved together is repaired from its ends inwards.

Cameras are world-to-camera matrices with OpenCV axes, in the frame of reference that the trusted cameras define.
Lengths in images are pixels at a longer side of 1000.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array, diags_array

from mtcm_nerfstudio.evidence.match_capture import FrameFeatures, MatchedCapture
from mtcm_nerfstudio.evidence.pair_table import PairTable
from mtcm_nerfstudio.geometry.epipolar import EPIPOLAR_INLIER_THRESHOLD, MatchedBearings, epipolar_errors
from mtcm_nerfstudio.geometry.poses import OPENGL_FROM_OPENCV, canonical_frame, nearest_rotation
from mtcm_nerfstudio.verdicts.absolute_pose import (
    FEWEST,
    Observations,
    estimate_pose_from_tracks,
    refined_camera,
    triangulate_points,
)

MIN_INLIER_RATIO = 0.7
"""Share of a frame's matches with trusted frames that must obey its new pose (see ``EPIPOLAR_INLIER_THRESHOLD``)."""
CLEARLY = 0.1
"""By how much this share must grow: what the claimed pose explains as well is no reason to move a frame."""
LARGEST_TURN = 0.5
"""Standard deviation of a new pose's direction, in degrees, if points were found to one pixel."""
LARGEST_SHIFT = 0.02
"""The same of its position, in units of the capture."""

_WITNESSES, _TESTABLE = 2, 8
"""Smallest number of trusted frames, each with enough matches, that a new pose needs."""
_MIN_INLIER_SUPPORT = 0.5
"""Share of a trusted frame's matches with the other trusted frames that must obey, or it is not trusted after all."""
_LEAST_KNOWN = 0.5
"""Share of the posed frames that must be believed: where most of a capture contradicts the rest, which part has moved
is anybody's guess."""
_VOTES = 10
"""Iterations of the inlier support."""
_OF_EACH = 60
"""Points that are taken of those that each frame shares with the suspect: more make it slower and hardly better."""
_LEAST_AHEAD = 0.1
"""Cosine of the angle from the axis up to which a bearing has a place in the image plane."""
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)


@dataclass(frozen=True, eq=False)
class _CorrespondenceGraph:
    """The points of all frames under one numbering, and which were matched with which."""

    first: Int[np.ndarray, " boundary"]
    """First point of each frame, then the number of all points."""
    frame: Int[np.ndarray, " node"]
    normalised_points: Float[np.ndarray, "node 2"]
    focal: Float[np.ndarray, " frame"]
    """NaN for frames whose lens is not known; none of their points is linked."""
    links: csr_array


@dataclass(frozen=True, eq=False)
class _Reconstruction:
    """What is known at the beginning of a round."""

    graph: _CorrespondenceGraph
    table: PairTable
    cameras: Float[np.ndarray, "frame 4 4"]
    known: Bool[np.ndarray, " frame"]
    """Frames whose cameras are believed."""

    @cached_property
    def links(self) -> csr_array:
        """Links that end in frames that are known."""
        return csr_array(self.graph.links @ diags_array(self.known[self.graph.frame].astype(np.float32)))

    def moved(self, found: Mapping[int, Float[np.ndarray, "4 4"] | None]) -> "_Reconstruction":
        """Return the scene in which some frames are where they were found, and known if the others bear them out."""
        cameras, known = self.cameras.copy(), self.known.copy()
        for i, camera in found.items():
            if camera is not None:
                cameras[i], known[i] = camera, True
        return _Reconstruction(
            self.graph,
            self.table,
            cameras,
            known & (_inlier_support(self.table, cameras, known) >= _MIN_INLIER_SUPPORT),
        )


def repair_poses(
    matched: MatchedCapture,
    c2w: Float[np.ndarray, "frame 4 4"],
    suspects: Bool[np.ndarray, " frame"],
    trusted: Bool[np.ndarray, " frame"],
) -> dict[int, Float[np.ndarray, "4 4"]]:
    """Find new poses for suspects by what they have in common with trusted frames.

    Args:
        matched: the capture's matches.
        c2w: claimed OpenGL camera-to-world matrices, in any world and unit; NaN for frames without a pose.
        suspects: frames to move. Those without a pose or without a known lens are left alone.
        trusted: frames that stay and say where the others belong. Those that contradict most of the others are not
            believed; suspects are not trusted, whatever is said here.

    Returns:
        New poses in the same world, by frame: those that are sure and fit clearly better than what was claimed.
    """
    graph = _build_correspondence_graph(matched)
    posed = np.isfinite(c2w).all(axis=(1, 2)) & np.isfinite(graph.focal)
    known, waiting = trusted & ~suspects & posed, suspects & posed
    if known.sum() < 2 or not waiting.any():
        return {}
    reference = canonical_frame(c2w[known])
    cameras = np.tile(np.eye(4), (len(c2w), 1, 1))
    cameras[posed] = _cameras_of(reference.to_capture(c2w[posed]))
    reconstruction = _Reconstruction(graph, matched.table, cameras, known).moved({})
    if reconstruction.known.sum() < _LEAST_KNOWN * posed.sum():
        return {}
    fresh, repaired = reconstruction.known, np.zeros_like(known)
    while fresh.any():
        # What failed before fails again unless a frame that it has something in common with is known by now.
        touched = waiting & _matched_with(matched.table, fresh)
        found = {int(i): _repaired(reconstruction, int(i)) for i in np.flatnonzero(touched)}
        reconstruction, fresh = reconstruction.moved(found), np.zeros_like(known)
        fresh[[i for i, camera in found.items() if camera is not None]] = True
        waiting, repaired = waiting & ~fresh, repaired | fresh
    # Those that were repaired first did not know of those that were repaired later.
    beside = repaired & _matched_with(matched.table, repaired)
    reconstruction = reconstruction.moved({int(i): _settled(reconstruction, int(i)) for i in np.flatnonzero(beside)})
    poses = reference.to_world(np.linalg.inv(reconstruction.cameras) @ OPENGL_FROM_OPENCV)
    index = [int(i) for i in np.flatnonzero(repaired & reconstruction.known)]
    return {i: poses[i] for i in index if _inlier_ratio(reconstruction, reconstruction.cameras, i) >= MIN_INLIER_RATIO}


def _build_correspondence_graph(matched: MatchedCapture) -> _CorrespondenceGraph:
    """Link the matched points of all frames whose lens is known."""
    counts = np.array([len(one.keypoints) for one in matched.features])
    normalised_points = [_normalised_points(one) for one in matched.features]
    focal = np.where([ray is None for ray in normalised_points], np.nan, matched.table.frames.resolution)
    first = np.concatenate([[0], np.cumsum(counts)])
    unknown = [np.full((count, 2), np.nan) for count in counts]
    every = np.concatenate([u if r is None else r for r, u in zip(normalised_points, unknown, strict=True)])
    ends = [first[[i, j]] + pair.indices for (i, j), pair in sorted(matched.matches.items())]
    a, b = np.concatenate([*ends, np.zeros((0, 2), dtype=int)]).T
    sound = np.isfinite(every[a]).all(axis=1) & np.isfinite(every[b]).all(axis=1)
    a, b = a[sound], b[sound]
    both = (np.concatenate([a, b]), np.concatenate([b, a]))
    links = csr_array((np.ones(2 * len(a), dtype=np.float32), both), shape=(len(every), len(every)))
    return _CorrespondenceGraph(first, np.repeat(np.arange(len(counts)), counts), every, focal, links)


def _normalised_points(one: FrameFeatures) -> Float[np.ndarray, "point 2"] | None:
    """Return x/z and y/z of the bearing of each keypoint; NaN for those beside or behind the camera."""
    if one.bearings is None:
        return None
    ahead = one.bearings[:, 2] > _LEAST_AHEAD
    return np.where(ahead[:, None], one.bearings[:, :2] / np.where(ahead, one.bearings[:, 2], 1.0)[:, None], np.nan)


def _matched_with(table: PairTable, frames: Bool[np.ndarray, " frame"]) -> Bool[np.ndarray, " frame"]:
    """Tell which frames have verified matches with any of the given ones."""
    pairs = table.pairs[table.verified > 0]
    out = np.zeros(len(table), dtype=bool)
    out[pairs[frames[pairs[:, 1]], 0]] = True
    out[pairs[frames[pairs[:, 0]], 1]] = True
    return out


def _cameras_of(c2w: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, "frame 4 4"]:
    """Return world-to-camera matrices with OpenCV axes; some captures carry scale or shear in theirs."""
    rigid = c2w.copy()
    rigid[:, :3, :3] = nearest_rotation(c2w[:, :3, :3])
    return np.linalg.inv(rigid @ OPENGL_FROM_OPENCV)


def _count_inliers(
    table: PairTable, cameras: Float[np.ndarray, "frame 4 4"], rows: Int[np.ndarray, " pair"]
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Return how many of each pair's matches obey the cameras, by those that were sampled, and how many there are."""
    valid, pairs = table.valid[rows], table.pairs[rows]
    resolution = np.nan_to_num(table.frames.resolution, nan=1.0)[pairs].reshape(-1, 2)
    matched = MatchedBearings(pairs, table.bearings[rows].astype(np.float64), valid, resolution)
    inliers = valid & (epipolar_errors(matched, np.linalg.inv(cameras)) < EPIPOLAR_INLIER_THRESHOLD)
    share = inliers.sum(axis=1) / np.maximum(valid.sum(axis=1), 1)
    count = np.where(valid.any(axis=1), table.verified[rows], 0.0)
    return share * count, count


def _inlier_support(
    table: PairTable, cameras: Float[np.ndarray, "frame 4 4"], known: Bool[np.ndarray, " frame"]
) -> Float[np.ndarray, " frame"]:
    """Return the inlier ratio of each frame over trusted frames, weighted by their own support."""
    rows = np.flatnonzero((table.verified > 0) & known[table.pairs].all(axis=1))
    inliers, there = _count_inliers(table, cameras, rows)
    i, j = table.pairs[rows].T
    support = np.ones(len(known))
    for _ in range(_VOTES):
        share = [
            np.bincount(i, count * support[j], len(known)) + np.bincount(j, count * support[i], len(known))
            for count in (inliers, there)
        ]
        support = np.where(share[1] > 0, share[0] / np.maximum(share[1], 1e-12), 1.0)
    return support


def _inlier_ratio(reconstruction: _Reconstruction, cameras: Float[np.ndarray, "frame 4 4"], i: int) -> float:
    """Return the share of a frame's matches with known frames that obey the cameras; 0 where too few are known."""
    pairs = reconstruction.table.pairs
    other = np.where(pairs[:, 0] == i, pairs[:, 1], pairs[:, 0])
    rows = np.flatnonzero((pairs == i).any(axis=1) & (reconstruction.table.verified > 0) & reconstruction.known[other])
    inliers, there = _count_inliers(reconstruction.table, cameras, rows)
    return float(inliers.sum() / there.sum()) if (there >= _TESTABLE).sum() >= _WITNESSES else 0.0


def _repaired(reconstruction: _Reconstruction, i: int) -> Float[np.ndarray, "4 4"] | None:
    """Return a suspect's new camera, None where there is none that is sure."""
    observations = _collect_observations(reconstruction, i)
    if observations is None:
        return None
    points, good = triangulate_points(observations, reconstruction.cameras, ~observations.own)
    camera = estimate_pose_from_tracks(
        observations.normalised_points[observations.own][good], points[good], float(reconstruction.graph.focal[i])
    )
    if camera is None:
        return None
    refined = refined_camera(observations, _with(reconstruction.cameras, i, camera), i)
    if refined is None or refined.turn > LARGEST_TURN or refined.shift > LARGEST_SHIFT:
        return None
    after = _inlier_ratio(reconstruction, _with(reconstruction.cameras, i, refined.camera), i)
    fits = after >= max(MIN_INLIER_RATIO, _inlier_ratio(reconstruction, reconstruction.cameras, i) + CLEARLY)
    return refined.camera if fits else None


def _settled(reconstruction: _Reconstruction, i: int) -> Float[np.ndarray, "4 4"] | None:
    """Return a repaired frame's camera, refined once more with all that are known now; None where that went wrong."""
    observations = _collect_observations(reconstruction, i)
    refined = None if observations is None else refined_camera(observations, reconstruction.cameras, i)
    if refined is None:
        return None
    after = _inlier_ratio(reconstruction, _with(reconstruction.cameras, i, refined.camera), i)
    return (
        refined.camera
        if after >= min(MIN_INLIER_RATIO, _inlier_ratio(reconstruction, reconstruction.cameras, i))
        else None
    )


def _with(
    cameras: Float[np.ndarray, "frame 4 4"], i: int, camera: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "frame 4 4"]:
    out = cameras.copy()
    out[i] = camera
    return out


def _collect_observations(reconstruction: _Reconstruction, i: int) -> Observations | None:
    """Collect the points that a frame shares with known frames, and who else was matched with those that share them."""
    graph = reconstruction.graph
    own = reconstruction.links[graph.first[i] : graph.first[i + 1]]
    if own.nnz < FEWEST:
        return None
    point, node = (own + own @ reconstruction.links).nonzero()
    others = graph.frame[node] != i
    point, node = point[others], node[others]
    keep = _some_of_each(point, graph.frame[node])[point]
    points, point = np.unique(point[keep], return_inverse=True)
    nodes = np.concatenate([node[keep], graph.first[i] + points])
    point = np.concatenate([point, np.arange(len(points))])
    order = np.lexsort((nodes, point))
    frame = graph.frame[nodes[order]]
    return Observations(point[order], frame, graph.normalised_points[nodes[order]], graph.focal[frame], frame == i)


def _some_of_each(
    point: Int[np.ndarray, " sighting"], frame: Int[np.ndarray, " sighting"]
) -> Bool[np.ndarray, " point"]:
    """Mark some of the points that each frame sees, all over the image, and the same for all frames where possible."""
    # Multiples of the golden ratio, modulo 1, are spread evenly however many there are.
    lot = np.arange(int(point.max()) + 1) * _GOLDEN % 1.0
    order = np.lexsort((lot[point], frame))
    rank = np.arange(len(order)) - np.searchsorted(frame[order], frame[order])
    chosen = np.zeros(len(lot), dtype=bool)
    chosen[point[order[rank < _OF_EACH]]] = True
    return chosen
