import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mtcm_nerfstudio.views.labels import look_at
from mtcm_nerfstudio.views.labels.look_at import angle_between, look_at_point, up_direction
from mtcm_nerfstudio.views.labels.pose_labels import pose_labels, view_angles

PLACES = {
    0: "front", 45: "three-quarter right", 90: "right side", 135: "three-quarter back right", 180: "back",
    -135: "three-quarter back left", -90: "left side", -45: "three-quarter left",
}  # fmt: skip


def looking(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """An OpenGL camera at a place, looking at another, in a world whose z axis points up; roll in degrees."""
    back = (position - target) / np.linalg.norm(position - target)
    x = np.cross([0.0, 0.0, 1.0], back)
    x = x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-9 else np.array([1.0, 0.0, 0.0])
    c2w = np.eye(4)
    c2w[:3, :3] = (
        np.stack([x, np.cross(back, x), back], axis=1) @ Rotation.from_euler("z", roll, degrees=True).as_matrix()
    )
    c2w[:3, 3] = position
    return c2w


def standing(azimuth: float, elevation: float = 10.0, distance: float = 2.0, roll: float = 0.0) -> np.ndarray:
    """A camera that looks at the origin; azimuth 0 is at −y, and +x is to the right of who stands there."""
    a, e = np.radians(azimuth), np.radians(elevation)
    place = distance * np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])
    return looking(place, np.zeros(3), roll)


def orbit(n: int = 24, first: float = 0.0, last: float = 345.0, **how: float) -> np.ndarray:
    return np.stack([standing(azimuth, **how) for azimuth in np.linspace(first, last, n)])


def moved(c2w: np.ndarray, seed: int) -> np.ndarray:
    """The same poses in a world that has been turned, moved and scaled."""
    rng = np.random.default_rng(seed)
    turn, scale = Rotation.random(random_state=seed).as_matrix(), np.exp(rng.uniform(-5, 5))
    out = c2w.copy()
    out[:, :3, :3] = turn @ c2w[:, :3, :3]
    out[:, :3, 3] = scale * c2w[:, :3, 3] @ turn.T + rng.normal(size=3) * scale * 10
    return out


def has_an_upright_axis(c2w: np.ndarray) -> bool:
    """Whether an axis of the world is the vertical."""
    stood_up = c2w.copy()
    stood_up[:, :3, :3] = look_at.upright(c2w[:, :3, :3])
    return bool(np.isin(up_direction(stood_up), (-1.0, 0.0, 1.0)).all())


def shaken(c2w: np.ndarray, seed: int, degrees: float = 4.0, share: float = 0.03) -> np.ndarray:
    """Poses as a hand holds them."""
    rng = np.random.default_rng(seed)
    out = c2w.copy()
    out[:, :3, :3] = (
        out[:, :3, :3] @ Rotation.from_rotvec(rng.normal(0, np.radians(degrees), (len(c2w), 3))).as_matrix()
    )
    out[:, :3, 3] += share * rng.normal(size=(len(c2w), 3))
    return out


def walk(n: int = 30, heading: float = 0.0, pitch: float = 0.0) -> np.ndarray:
    """Cameras on a gentle curve, 6 units long, that look at an angle to it: heading to the right, pitch upwards."""
    t = np.linspace(0, 1, n)
    places = np.stack([6 * t, 0.5 * t**2, np.full(n, 1.6)], axis=1)
    along = np.arctan2(1.0 * t, 6.0) - np.radians(heading)
    p = np.radians(pitch)
    sight = np.stack([np.cos(along) * np.cos(p), np.sin(along) * np.cos(p), np.full(n, np.sin(p))], axis=1)
    return np.stack([looking(a, a + b) for a, b in zip(places, sight, strict=True)])


@pytest.mark.parametrize("seed", range(3))
def test_eight_places_around_a_subject_have_their_names(seed: int) -> None:
    azimuths = [0, *range(15, 360, 15)]
    said = pose_labels(moved(shaken(orbit(), seed), seed))
    for azimuth, label in zip(azimuths, said, strict=True):
        signed = (azimuth + 180) % 360 - 180 or (180 if azimuth == 180 else 0)
        if signed in PLACES:
            assert label == PLACES[signed], azimuth


def test_the_front_is_where_the_user_says() -> None:
    said = pose_labels(orbit(24), front=6)
    assert said[6] == "front" and said[0] == "left side" and said[12] == "right side" and said[18] == "back"


def test_the_front_of_half_a_walk_around_is_its_middle() -> None:
    said = pose_labels(orbit(19, -90, 90))
    assert said[0] == "left side" and said[9] == "front" and said[18] == "right side"


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        (standing(0, elevation=40), "front, looking down"),
        (standing(90, elevation=-40), "right side, looking up"),
        (standing(0, elevation=80), "from above"),
        (standing(0, elevation=-80), "from below"),
        (standing(-90, distance=0.9), "left side, close-up"),
        (standing(180, distance=5.0), "back, far away"),
        (standing(0, roll=30), "front, tilted"),
        (standing(0, roll=-90), "front, tilted"),
        (standing(45, roll=175), "three-quarter right, upside down"),
        (standing(0, elevation=30, distance=1.0, roll=40), "front, looking down, close-up, tilted"),
        (looking(np.array([0.0, -2.0, 0.0]), np.array([2.0, -2.5, 0.0])), "front, looking away"),
    ],
)
def test_each_word_means_what_it_says(camera: np.ndarray, words: str) -> None:
    said = pose_labels(np.concatenate([orbit(), camera[None]]), front=0)
    assert said[-1] == words
    assert set(said[:24]) == set(PLACES.values())


@pytest.mark.parametrize(
    ("heading", "pitch", "words"),
    [
        (0, 0, "looking ahead"), (90, 0, "looking right"), (-90, 0, "looking left"), (180, 0, "looking back"),
        (90, -30, "looking right, looking down"), (0, 35, "looking ahead, looking up"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_a_walk_is_named_by_its_path(heading: float, pitch: float, words: str, seed: int) -> None:
    c2w = moved(shaken(walk(heading=heading, pitch=pitch), seed, degrees=2.0, share=0.02), seed)
    if abs(pitch) > 20:  # one heading and one pitch do not show the vertical; a glance to the side now and then does
        c2w[::4] = moved(walk(heading=heading + 60.0), seed)[::4]
        assert [label for i, label in enumerate(pose_labels(c2w)) if i % 4].count(words) >= 20
    else:
        assert set(pose_labels(c2w)) == {words}


def test_a_flight_that_turns_looks_straight_down() -> None:
    rng = np.random.default_rng(0)
    places = np.stack([np.tile(np.arange(6.0), 5), np.repeat(np.arange(5.0), 6), np.full(30, 8.0)], axis=1)
    down = np.stack(
        [looking(place, place - [0, 0, 1], roll) for place, roll in zip(places, rng.uniform(0, 360, 30), strict=True)]
    )
    assert set(pose_labels(moved(shaken(down, 1), 1))) == {"straight down"}


def test_a_panorama_is_named_against_the_users_front_frame() -> None:
    panorama = np.stack(
        [looking(np.zeros(3), np.array([np.cos(a), -np.sin(a), 0.0])) for a in np.radians(range(0, 360, 30))]
    )
    said = pose_labels(panorama, front=0)
    assert (said[0], said[3], said[6], said[9]) == ("looking ahead", "looking right", "looking back", "looking left")


@settings(max_examples=15, phases=[Phase.explicit, Phase.generate])  # smaller poses say no more, and take minutes
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), kind=st.sampled_from(["orbit", "arc", "walk", "random"]))
def test_moving_the_world_changes_no_angle(seed: int, n: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    c2w = {
        "orbit": lambda: shaken(orbit(n), seed),
        "arc": lambda: shaken(orbit(n, -50, 60, elevation=25.0), seed),
        "walk": lambda: shaken(walk(n, heading=40.0), seed),
        "random": lambda: moved(np.stack([looking(*rng.normal(size=(2, 3))) for _ in range(n)]), seed),
    }[kind]()
    c2w, elsewhere = moved(c2w, seed + 2), moved(c2w, seed + 1)
    assume(not any(has_an_upright_axis(some) for some in (c2w, elsewhere)))
    here, there = view_angles(c2w), view_angles(elsewhere)
    assert (here.elevation is None) == (there.elevation is None)
    for a, b in ((here.azimuth, there.azimuth), (here.roll, there.roll)):
        assert (np.abs((a - b + 180) % 360 - 180) < 1e-2).all()
    assert np.allclose(here.pitch, there.pitch, atol=1e-2)


@pytest.mark.parametrize("seed", range(5))
def test_wrong_and_far_poses_do_not_rename_the_others(seed: int) -> None:
    clean = shaken(orbit(40, 4, 355), seed)
    spoiled = clean.copy()
    wrong = np.random.default_rng(seed).choice(np.arange(1, 40), 8, replace=False)
    spoiled[wrong, :3, :3] = Rotation.random(8, random_state=seed).as_matrix()
    spoiled[wrong[0], :3, 3] *= 1000.0
    before, after = view_angles(clean), view_angles(spoiled)
    good = np.setdiff1d(np.arange(40), wrong)
    assert (np.abs((before.azimuth - after.azimuth + 180) % 360 - 180)[good] < 5).all()
    assert np.abs(before.pitch - after.pitch)[good].max() < 5
    assert "far away" in str(pose_labels(spoiled)[wrong[0]])


def test_frames_without_a_pose_have_no_label_and_change_nobody_elses() -> None:
    c2w = orbit(24)
    holes = np.insert(c2w, [0, 7, 24], np.nan, axis=0)
    holes[8, 1, 1] = np.inf
    said = pose_labels(holes, front=1)
    absent = [i for i, label in enumerate(said) if label is None]
    assert absent == [0, 8, 26]
    assert [label for label in said if label is not None] == list(pose_labels(c2w, front=0))


@pytest.mark.parametrize("n", (0, 1, 2, 3))
def test_small_captures_have_labels(n: int) -> None:
    said = pose_labels(orbit(24)[:n])
    assert len(said) == n and all(said)
    assert pose_labels(np.full((n, 4, 4), np.nan)) == (None,) * n


def test_frames_in_one_place_have_labels() -> None:
    assert set(pose_labels(np.tile(standing(0)[None], (5, 1, 1)))) == {"looking ahead"}


@pytest.mark.parametrize("front", (-1, 3, 4))
def test_a_front_without_a_pose_is_refused(front: int) -> None:
    c2w = orbit(4)
    c2w[3] = np.nan
    with pytest.raises(ValueError, match=f"front={front}"):
        pose_labels(c2w, front)


def test_a_capture_taken_sideways_is_named_like_one_taken_upright() -> None:
    upright = orbit(24, elevation=35.0)
    for quarter in (90.0, -90.0):
        sideways = upright.copy()
        sideways[:, :3, :3] = upright[:, :3, :3] @ Rotation.from_euler("z", quarter, degrees=True).as_matrix()
        assert pose_labels(moved(sideways, 3)) == pose_labels(upright)


def test_the_vertical_of_a_capture_that_looks_down_is_not_the_pictures_own() -> None:
    arc = orbit(20, -60, 60, elevation=40.0)
    assert angle_between(up_direction(arc)[None], np.array([[0.0, 0.0, 1.0]]))[0] < 1.0


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", (-1.0, 1.0))
def test_a_world_that_stands_upright_tells_the_vertical_exactly(axis: int, sign: float) -> None:
    up = sign * np.eye(3)[axis]
    stand_up = Rotation.align_vectors(up[None], np.array([[0.0, 0.0, 1.0]]))[0].as_matrix()
    c2w = shaken(orbit(20, -80, 80, elevation=10.0), 0)
    c2w[:, :3] = stand_up @ c2w[:, :3]
    assert np.array_equal(up_direction(c2w), up)
    c2w[:, :3] = Rotation.from_rotvec(np.radians(8.0) * np.eye(3)[axis - 1]).as_matrix() @ c2w[:, :3]
    assert 5.0 < angle_between(up_direction(c2w)[None], up[None])[0] < 11.0


def test_the_look_at_point_is_found_among_wrong_poses_and_absent_on_a_walk() -> None:
    c2w = shaken(orbit(30), 0)
    c2w[::5, :3, :3] = Rotation.random(6, random_state=0).as_matrix()
    point = look_at_point(c2w)
    assert point is not None and np.linalg.norm(point) < 0.1
    assert look_at_point(shaken(walk(heading=90.0), 0, degrees=3.0)) is None


@pytest.mark.real
def test_the_toy_is_seen_from_where_the_pictures_show_it(shared_captures: Path) -> None:
    frames = json.loads((shared_captures / "stitch" / "transforms.json").read_text())["frames"]
    frames = sorted(frames, key=lambda frame: frame["file_path"])
    said = dict(
        zip(
            (f["file_path"] for f in frames),
            pose_labels(np.array([f["transform_matrix"] for f in frames])),
            strict=True,
        )
    )
    seen = {
        1: "front",
        30: "three-quarter right",
        40: "right side",
        70: "back",
        90: "left side",
        105: "three-quarter left",
    }
    for number, words in seen.items():  # as somebody who opened the pictures would say
        assert str(said[f"images/{number:04d}.jpg"]).startswith(words)
