"""What each frame looks like beside its neighbours: those before and after it, those at the nearest poses, and those
that look most alike.

A linear map of a token followed by a layer norm hardly shows a pose that is off by 3°, and a few captures are too
few to learn subtraction from. So the differences are taken here, from the tokens alone, and enter the network beside
the linear map. Nothing that is hidden or absent is ever read.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mtcm_nerfstudio.tokens.tokens import EMBEDDING, FOCAL, MASK_AREA, PARTS, POSE, TIMESTAMP

_LOWER_QUARTILE = 0.25
"""What is typical of a capture: one wrong frame spoils its neighbours' differences too, so a median is too high."""
_TELLS_APART = 1e-3
"""Distances that differ by less are equal (standardised units)."""
_LARGEST_LOG = 6.0
_SMALLEST = 1e-4
_SCALARS = 10
_PROJECTED = 64


ENTRIES_OF_PARTS = (EMBEDDING, POSE, *(slice(entry, entry + 1) for entry in (TIMESTAMP, MASK_AREA, FOCAL)))
"""The entries of a token that belong to each of ``PARTS``."""


class Comparison(NamedTuple):
    """Differences between each frame and its neighbours; zero where there is nothing to compare."""

    image: Float[Tensor, "capture frame two 384"]
    """Embedding minus the mean of its neighbours in time, and of its neighbours by pose."""
    pose: Float[Tensor, "capture frame two 7"]
    """Pose minus the mean of its neighbours in time, and minus the smoothest curve through four of them."""
    sizes: Float[Tensor, "capture frame ten"]
    """Sizes of these and further differences (see ``compare``), not negative."""
    known: Bool[Tensor, "capture frame ten"]


class NeighbourComparison(nn.Module):
    """A small network over the differences between a frame and its neighbours."""

    def __init__(self, width: int, neighbours: int) -> None:
        """Make the layers; ``neighbours`` is how many frames count as near by pose or by appearance."""
        super().__init__()
        self.neighbours = neighbours
        self.project = nn.Linear(EMBEDDING.stop - EMBEDDING.start, _PROJECTED, bias=False)
        self.hidden = nn.Linear(2 * _PROJECTED + 2 * 7 + 3 * _SCALARS, width)
        self.out = nn.Linear(width, width)

    def forward(
        self, standardised: Float[Tensor, "capture frame 394"], visible: Bool[Tensor, "capture frame 5"]
    ) -> Float[Tensor, "capture frame dim"]:
        """Return an embedding of the neighbour differences of each frame."""
        comparison = compare(standardised, visible, self.neighbours)
        typical = typical_size(comparison.sizes, comparison.known)
        relative = logarithm(comparison.sizes) - logarithm(typical)
        # Sizes 3 to 6 are those of the pose differences: position and rotation of each of the two.
        unit = typical[:, :, 3:7].clamp(min=_SMALLEST).unflatten(-1, (2, 2))
        lengths = torch.cat([unit[..., :1].expand(-1, -1, -1, 3), unit[..., 1:].expand(-1, -1, -1, 4)], dim=-1)
        pose = torch.asinh(comparison.pose / lengths)
        features = [
            self.project(comparison.image).flatten(2),
            pose.flatten(2),
            relative.clamp(-_LARGEST_LOG, _LARGEST_LOG) * comparison.known,
            logarithm(comparison.sizes) * comparison.known / 3.0,
            comparison.known.to(standardised.dtype),
        ]
        return self.out(nn.functional.gelu(self.hidden(torch.cat(features, dim=-1))))


def compare(
    standardised: Float[Tensor, "capture frame 394"], visible: Bool[Tensor, "capture frame 5"], neighbours: int
) -> Comparison:
    """Compare each frame with its neighbours in time, by pose and by appearance.

    The ten sizes: embedding against time, against pose, against the most alike frame; position and rotation against
    the mean of two, position and rotation against the smooth curve; position and rotation against the frames that
    look alike; distance to the nearest pose.
    """
    image, pose = standardised[..., EMBEDDING], standardised[..., POSE]
    sees_image, sees_pose = visible[..., PARTS.index("embedding")], visible[..., PARTS.index("pose")]
    image_in_time, image_timed = image_against_time(image, sees_image)
    pose_in_time, pose_timed = pose_against_time(pose, sees_pose)

    sees_both = sees_image & sees_pose
    apart = pose_distance(pose)
    unlike = distances(image, image) / image.shape[-1] ** 0.5
    near, near_known = nearest(apart, sees_both, neighbours)
    similar, alike_known = nearest(unlike, sees_both, neighbours)
    image_at_pose = (image - mean_of(image, near, near_known)) * near_known.any(-1, keepdim=True)
    moved = pose_difference_to_similar(pose, similar, alike_known)
    closest_pose, pose_known = least(apart, sees_pose)
    closest_image, image_known = least(unlike, sees_image)

    sizes = torch.cat(
        [
            rms(image_in_time)[..., None],
            rms(image_at_pose)[..., None],
            closest_image[..., None],
            position_and_rotation(pose_in_time).flatten(2),
            moved,
            closest_pose[..., None],
        ],
        dim=-1,
    )
    cross = near_known.any(-1)
    known = torch.stack(
        [image_timed, cross, image_known, *([pose_timed] * 4), *([alike_known.any(-1)] * 2), pose_known], dim=-1
    )
    return Comparison(torch.stack([image_in_time, image_at_pose], dim=2), pose_in_time, sizes * known, known)


def between_neighbours(
    standardised: Float[Tensor, "capture frame 394"], visible: Bool[Tensor, "capture frame 5"]
) -> Float[Tensor, "capture frame 394"]:
    """Return what each frame's token would be if it lay on the straight line between its neighbours in time.

    Each part has neighbours of its own: the nearest frames before and after that show it. Where there is only one,
    it is taken as it is; where there is none, zeros stand in.
    """
    rank = torch.arange(visible.shape[1], device=visible.device, dtype=standardised.dtype)[None, :, None]
    parts = []
    for part, entries in enumerate(ENTRIES_OF_PARTS):
        around = torch.stack([previous_visible(visible[..., part]), next_visible(visible[..., part])], dim=-1)
        steps = (around - rank).abs()
        weight = (around >= 0) * torch.where((around >= 0).all(-1, keepdim=True), steps.flip(-1), 1.0)
        values = gather_frames(standardised[..., entries], around.clamp(min=0))
        line = (values * weight[..., None]).sum(dim=2) / weight.sum(-1, keepdim=True).clamp(min=1.0)
        parts.append(line)
    return torch.cat(parts, dim=-1)


def image_against_time(
    image: Float[Tensor, "capture frame 384"], visible: Bool[Tensor, "capture frame"]
) -> tuple[Float[Tensor, "capture frame 384"], Bool[Tensor, "capture frame"]]:
    """Return embeddings minus the mean of the nearest visible frames before and after, and where that is known."""
    around = torch.stack([previous_visible(visible), next_visible(visible)], dim=-1)
    known = (around >= 0) & visible[..., None]
    difference = image - mean_of(image, around.clamp(min=0), known)
    return difference * known.any(-1, keepdim=True), known.any(-1)


def pose_against_time(
    pose: Float[Tensor, "capture frame 7"], visible: Bool[Tensor, "capture frame"]
) -> tuple[Float[Tensor, "capture frame two 7"], Bool[Tensor, "capture frame"]]:
    """Return poses minus the mean of the two frames around, and minus the smooth curve through the four around.

    The cubic through the points at −2, −1, 1, 2 has (4(a₋₁ + a₁) − (a₋₂ + a₂)) / 6 at 0. At the ends of the walk a
    straight line through the two nearest frames, 2a₁ − a₂, stands in for both.
    """
    before, after = previous_visible(visible), next_visible(visible)
    around = torch.stack([before, after, step_on(before, before), step_on(after, after)], dim=-1)
    known = (around >= 0) & visible[..., None]
    others = aligned(gather_frames(pose, around.clamp(min=0)), pose)
    near, far = others[..., :2, :], others[..., 2:, :]
    weight = known[..., :2].to(pose.dtype)
    mean = (near * weight[..., None]).sum(-2) / weight.sum(-1, keepdim=True).clamp(min=1.0)
    at_an_end = ~known[..., :2].all(-1, keepdim=True)
    for side in range(2):
        line = 2.0 * near[..., side, :] - far[..., side, :]
        mean = torch.where(at_an_end & known[..., side::2].all(-1, keepdim=True), line, mean)
    cubic = (4.0 * near.sum(-2) - far.sum(-2)) / 6.0
    smooth = torch.where(known.all(-1, keepdim=True), cubic, mean)
    timed = known[..., :2].any(-1)
    difference = pose[:, :, None] - torch.stack([mean, smooth], dim=2)
    return difference * timed[:, :, None, None], timed


def pose_difference_to_similar(
    pose: Float[Tensor, "capture frame 7"],
    similar: Int[Tensor, "capture frame k"],
    known: Bool[Tensor, "capture frame k"],
) -> Float[Tensor, "capture frame two"]:
    """Return how far the poses of the frames that look alike are: the least difference of position and of rotation."""
    difference = position_and_rotation(pose[:, :, None] - aligned(gather_frames(pose, similar), pose))
    nearest_of_them = difference.masked_fill(~known[..., None], torch.inf).amin(dim=2)
    return nearest_of_them.nan_to_num(posinf=0.0)


def aligned(
    others: Float[Tensor, "capture frame k 7"], pose: Float[Tensor, "capture frame 7"]
) -> Float[Tensor, "capture frame k 7"]:
    """Turn the sign of the others' quaternions so that they lie on the same side as the frame's own."""
    agreement = (others[..., 3:] * pose[:, :, None, 3:]).sum(-1, keepdim=True)
    return torch.cat([others[..., :3], torch.where(agreement < 0, -others[..., 3:], others[..., 3:])], dim=-1)


def pose_distance(pose: Float[Tensor, "capture frame 7"]) -> Float[Tensor, "capture frame frame"]:
    """Return the distance between every two poses: positions and quaternions (of either sign) taken together."""
    position = distances(pose[..., :3], pose[..., :3])
    rotation = torch.minimum(distances(pose[..., 3:], pose[..., 3:]), distances(pose[..., 3:], -pose[..., 3:]))
    return torch.hypot(position, 2.0 * rotation)


def distances(
    a: Float[Tensor, "capture frame dim"], b: Float[Tensor, "capture frame dim"]
) -> Float[Tensor, "capture frame frame"]:
    """Return Euclidean distances, not by way of a matrix product, which loses the small ones."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def nearest(
    distance: Float[Tensor, "capture frame frame"], visible: Bool[Tensor, "capture frame"], count: int
) -> tuple[Int[Tensor, "capture frame k"], Bool[Tensor, "capture frame k"]]:
    """Return the indices of the nearest other visible frames, and which of them exist.

    Of frames that are equally near, as on an exact ring, the one that is nearer in time comes first, then the earlier:
    the last bits of a distance, which turn with the world, must not choose.
    """
    rank = torch.arange(distance.shape[-1], device=distance.device, dtype=torch.float64)
    steps = (rank[:, None] - rank).abs() + 0.5 * (rank > rank[:, None])
    ordered = (_between_visible(distance, visible).double() / _TELLS_APART).round() + steps / (2.0 * len(rank) + 1.0)
    values, index = ordered.topk(min(count, distance.shape[-1]), largest=False)
    return index, torch.isfinite(values)


def least(
    distance: Float[Tensor, "capture frame frame"], visible: Bool[Tensor, "capture frame"]
) -> tuple[Float[Tensor, "capture frame"], Bool[Tensor, "capture frame"]]:
    """Return the distance to the nearest other visible frame (0 where there is none), and where there is one."""
    value = _between_visible(distance, visible).amin(dim=-1)
    return value.nan_to_num(posinf=0.0), torch.isfinite(value)


def previous_visible(visible: Bool[Tensor, "capture frame"]) -> Int[Tensor, "capture frame"]:
    """Return the index of the nearest visible frame before each frame, −1 where there is none."""
    rank = torch.arange(visible.shape[1], device=visible.device).expand(visible.shape)
    latest = torch.where(visible, rank, -1).cummax(dim=1).values
    return nn.functional.pad(latest[:, :-1], (1, 0), value=-1)


def next_visible(visible: Bool[Tensor, "capture frame"]) -> Int[Tensor, "capture frame"]:
    """Return the index of the nearest visible frame after each frame, −1 where there is none."""
    last = visible.shape[1] - 1
    mirrored = previous_visible(visible.flip(1)).flip(1)
    return torch.where(mirrored >= 0, last - mirrored, -1)


def step_on(
    index: Int[Tensor, "capture frame"], neighbour: Int[Tensor, "capture frame"]
) -> Int[Tensor, "capture frame"]:
    """Return the neighbour of each indexed frame, −1 where the index or the neighbour does not exist."""
    return torch.where(index >= 0, neighbour.gather(1, index.clamp(min=0)), -1)


def gather_frames(
    values: Float[Tensor, "capture frame dim"], index: Int[Tensor, "capture frame k"]
) -> Float[Tensor, "capture frame k dim"]:
    """Return the values of the indexed frames."""
    rows = torch.arange(len(values), device=values.device)[:, None, None]
    return values[rows, index]


def mean_of(
    values: Float[Tensor, "capture frame dim"],
    index: Int[Tensor, "capture frame k"],
    known: Bool[Tensor, "capture frame k"],
) -> Float[Tensor, "capture frame dim"]:
    """Return the mean of the indexed frames' values over those that are known (0 where none is)."""
    weight = known.to(values.dtype)
    total = (gather_frames(values, index) * weight[..., None]).sum(dim=2)
    return total / weight.sum(-1, keepdim=True).clamp(min=1.0)


def position_and_rotation(difference: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 2"]:
    """Return the lengths of a pose difference's two parts."""
    return torch.stack([difference[..., :3].norm(dim=-1), difference[..., 3:].norm(dim=-1)], dim=-1)


def rms(values: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Return the root mean square over the last axis."""
    return values.square().mean(dim=-1).sqrt()


def typical_size(
    sizes: Float[Tensor, "capture frame size"], known: Bool[Tensor, "capture frame size"]
) -> Float[Tensor, "capture one size"]:
    """Return each capture's lower quartile of every size over the frames where it is known (0 where none is)."""
    ordered = sizes.masked_fill(~known, torch.inf).sort(dim=1).values
    place = (_LOWER_QUARTILE * (known.sum(dim=1, keepdim=True) - 1).clamp(min=0)).long()
    return ordered.gather(1, place).nan_to_num(posinf=0.0)


def logarithm(sizes: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
    """Return the natural logarithm, with a floor that keeps it finite."""
    return sizes.clamp(min=_SMALLEST).log()


def _between_visible(
    distance: Float[Tensor, "capture frame frame"], visible: Bool[Tensor, "capture frame"]
) -> Float[Tensor, "capture frame frame"]:
    itself = torch.eye(distance.shape[-1], dtype=torch.bool, device=distance.device)
    return distance.masked_fill(~(visible[:, :, None] & visible[:, None, :]) | itself, torch.inf)
