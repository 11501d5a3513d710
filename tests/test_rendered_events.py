"""What happens while a capture is rendered: journeys, exposure, blur, second sessions, and what moves."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import rendered_scenes
from rendering import exposure, moving, paths, rooms, routes, sessions, shake, stages, streets
from rendering.exposure import ExposureSettings
from rendering.places import Place
from rendering.raycast import Camera
from rendering.recipes import Events, Recipe
from rendering.stages import Look, Workshop

TINY = (48, 36)
CAMERA = Camera(160, 120, 130.0, 81.0, 59.0)


def quiet(seed: int, events: Events | None = None) -> Recipe:
    recipe = rendered_scenes.draw_recipe(seed)
    return replace(recipe, events=events or Events(), frame_scale=1.0, naming="padded", softness_px=0.0)


def small_place(seed: int = 0, surroundings: stages.Surroundings = "room") -> Place:
    return stages.build_place(np.random.default_rng(seed), Look(surroundings, contrast=0.8))


def a_pose() -> np.ndarray:
    return paths.look_at(np.array([[2.5, 1.0, 1.3]]), np.array([[0.0, 0.0, 0.5]]), np.array([0.05]))[0]


# --- recipes


def test_a_few_consecutive_seeds_have_every_kind_of_event() -> None:
    for start in (0, 200):
        events = [rendered_scenes.draw_recipe(seed).events for seed in range(start, start + 48)]
        assert 10 <= sum(e.blur_runs > 0 for e in events) <= 24
        assert 4 <= sum(e.second_session != "none" for e in events) <= 12
        assert 8 <= sum(e.has_passers_by for e in events) <= 22
        assert 2 <= sum(e.is_night for e in events) <= 8
        assert 16 <= sum(e.exposure.metering == "automatic" for e in events) <= 40
        assert any(e.exposure.white_balance_drift > 0 for e in events)


def test_sparse_captures_have_fewer_frames_and_journeys_more_but_not_over_twice_as_many() -> None:
    recipes = [rendered_scenes.draw_recipe(seed) for seed in range(40)]
    counts = {name: [r.frame_count(50) for r in recipes if r.path == name] for name in ("sparse_orbit", "round_trip")}
    assert all(18 <= count <= 40 for count in counts["sparse_orbit"])
    assert all(50 < count <= 100 for count in counts["round_trip"])
    assert all(r.frame_count(50) == 50 for r in recipes[::2])


@pytest.mark.parametrize("kind", ["sparse_orbit", "sparse_arc"])
def test_a_sparse_path_steps_ten_to_twenty_five_degrees(kind: str) -> None:
    for seed in range(5):
        positions = paths.PATHS[kind](np.random.default_rng(seed), np.linspace(0, 1, 20))
        angle = np.unwrap(np.arctan2(positions[:, 1], positions[:, 0]))
        steps = np.degrees(np.abs(np.diff(angle)))
        assert (steps > 9.9).all() and (steps < 25.1).all()


# --- journeys


def journey(surroundings: stages.Surroundings, seed: int, is_round_trip: bool) -> tuple[Place, np.ndarray]:
    rng = np.random.default_rng(seed)
    look = Look(surroundings, contrast=0.8)
    shop = Workshop(rng, look)
    if surroundings == "rooms":
        place = rooms.build_rooms(rng, shop, is_round_trip, is_night=False)
    else:
        corners = streets.round_corners(rng) if is_round_trip else streets.winding_corners(rng)
        place = streets.build_streets(rng, shop, look, corners, is_night=False)
    assert place.route is not None
    gait = routes.Gait(1.5, cornering=0.6)
    route = routes.Route(place.route, gait.cornering)
    return place, routes.travel(route, gait, routes.distances_along(route, gait, rng, 60), rng)


@pytest.mark.parametrize("is_round_trip", [False, True])
@pytest.mark.parametrize("surroundings", ["rooms", "town"])
def test_a_journey_turns_meets_no_wall_and_ends_elsewhere_or_where_it_began(
    surroundings: stages.Surroundings, is_round_trip: bool
) -> None:
    place, c2w = journey(surroundings, 3, is_round_trip)
    stage, at = place.stage(), c2w[:, :3, 3]
    steps = np.diff(at, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert all(stage.hit_distance(p, s / n) > n for p, s, n in zip(at, steps, lengths, strict=False))
    heading = -c2w[:, :2, 2] / np.linalg.norm(c2w[:, :2, 2], axis=1, keepdims=True)
    assert (heading @ heading[0]).min() < 0.3
    from_start = np.linalg.norm(at - at[0], axis=1)
    is_back = from_start[-5:].min() < 0.35 * from_start.max()
    assert is_back == is_round_trip


def test_a_night_has_street_lamps_and_little_other_light() -> None:
    look = Look("town", contrast=0.8)
    route = np.array([[0.0, 0.0], [25.0, 0.0]])
    day, night = (
        streets.build_streets(rng, Workshop(rng, look), look, route, is_night).light
        for is_night, rng in ((False, np.random.default_rng(1)), (True, np.random.default_rng(1)))
    )
    assert night.sun.max() < 0.1 * day.sun.max() and len(night.lamps) >= 2 and not day.lamps


# --- exposure


def test_automatic_exposure_brings_every_frame_to_the_target() -> None:
    light = np.concatenate([np.full(15, 0.1), np.full(15, 0.8)])
    gain = exposure.automatic_gain(light, 0.2, 1.0, np.zeros(30, bool))
    np.testing.assert_allclose((gain * light)[[0, 1, -2, -1]], 0.2, rtol=0.05)
    assert np.abs(np.diff(np.log2(gain))).max() < 1.5
    noise = exposure.sensor_noise(0.01, gain, np.zeros(30, bool))
    assert noise[0] > noise[-1]


def test_rooms_of_different_light_come_out_alike_with_automatic_exposure_only() -> None:
    spread = {}
    for metering in ("fixed", "automatic"):
        recipe = quiet(3, Events(exposure=ExposureSettings(metering)))
        shots = [shot for _, shot in rendered_scenes.render_frames(recipe, 16, TINY)]
        spread[metering] = np.std([np.log2(((shot.pixels / 255.0) ** 2.2).mean()) for shot in shots])
    assert spread["automatic"] < 0.8 * spread["fixed"]


def test_white_balance_drifts_slowly() -> None:
    gains = exposure.white_balance(np.random.default_rng(0), 60, 0.1)
    assert (gains[:, 1] == 1.0).all() and gains.std(axis=0)[[0, 2]].min() > 0.02
    assert np.abs(np.diff(gains, axis=0)).max() < 0.06


# --- blur


def test_a_rotated_picture_is_that_of_the_rotated_pose() -> None:
    stage, pose, turned = small_place().stage(), a_pose(), a_pose()
    rotation = np.array([0.01, 0.03, 0.02])
    turned[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(rotation).as_matrix()
    warped, mask = shake.mean_over_rotation(stage, pose, CAMERA, rotation[None])
    sharp, sharp_mask = stage.render(pose, CAMERA)
    # What is finer than a pixel is sampled differently by the two: they are compared a little coarser.
    true, sharp, warped = (
        cv2.GaussianBlur(picture, (0, 0), 1.5) for picture in (stage.render(turned, CAMERA)[0], sharp, warped)
    )
    assert np.abs(warped - true).mean() < 0.1 * np.abs(sharp - true).mean()
    np.testing.assert_array_equal(mask, sharp_mask)


@pytest.mark.parametrize(("extent", "grade"), [(0.002, None), (0.006, "mild"), (0.02, "clear")])
def test_a_blur_has_the_extent_that_its_grade_says(extent: float, grade: str | None) -> None:
    axis = np.array([0.0, 1.0, 0.0])
    camera = Camera(320, 240, 260.0, 160.0, 120.0)
    exposed = shake.expose(small_place().stage(), a_pose(), camera, (extent, axis), np.random.default_rng(0))
    assert exposed.extent == pytest.approx(extent, rel=0.02)
    assert shake.grade_of(exposed.extent) == grade


def test_runs_of_blur_rise_and_fall_over_frames_that_are_good() -> None:
    c2w = paths.hand_held("orbit", np.random.default_rng(0), 50, np.zeros(3))
    for seed in range(10):
        extent = shake.draw_shake(np.random.default_rng(seed), c2w, runs=1, tremor=0.003).extent
        blurred = np.flatnonzero(extent >= shake.MILD)
        assert 1 <= len(blurred) <= 8 and np.ptp(blurred) < 8


# --- second sessions


@pytest.mark.parametrize("placement", ["beginning", "end", "spread"])
def test_a_second_session_is_one_block_in_time_and_every_view_is_taken_once(placement: sessions.Placement) -> None:
    drawn = sessions.draw_sessions(np.random.default_rng(0), placement, 40)
    assert sorted(drawn.order.tolist()) == list(range(40))
    assert 4 <= drawn.is_second.sum() <= 14
    assert np.abs(np.diff(drawn.is_second.astype(int))).sum() == 1
    assert drawn.is_second[0] == (placement == "beginning")


def test_a_second_session_finds_other_solids_in_another_light_and_none_in_a_cameras_way() -> None:
    place = small_place(2, "outdoor")
    cameras = paths.hand_held("orbit", np.random.default_rng(0), 30, place.centre)[:, :3, 3]
    for seed in range(6):
        second = sessions.second_session(place, np.random.default_rng(seed), cameras)
        before, after = {id(p) for p in place.parts}, {id(p) for p in second.parts}
        assert 2 <= max(len(before - after), len(after - before)) <= 4
        assert second.light.towards_sun @ place.light.towards_sun < 0.95
        for solid in second.parts:
            if id(solid) not in before:
                gap = np.linalg.norm(cameras[:, None, :2] - solid.vertices[None, :, :2], axis=-1)
                assert gap.min() > 0.3


# --- what moves


def test_passers_by_are_small_and_in_few_frames() -> None:
    place = small_place(4, "outdoor")
    stage = place.stage()
    c2w = paths.hand_held("orbit", np.random.default_rng(0), 30, place.centre)
    extras = moving.passers_by(place, stage, c2w, CAMERA, np.random.default_rng(5))
    assert 1 <= len(extras) <= 12
    for index, figures in extras.items():
        for figure in figures:
            distance = np.linalg.norm(figure.vertices.mean(axis=0) - c2w[index, :3, 3])
            height = np.ptp(figure.vertices[:, 2]) * CAMERA.focal / distance / CAMERA.height
            assert 0.02 < height < 0.16 and distance > 2.5


def test_cars_drive_along_the_road_beside_the_camera() -> None:
    rng = np.random.default_rng(2)
    look = Look("road", contrast=0.8)
    place = streets.build_streets(rng, Workshop(rng, look), look, np.array([[0.0, 0.0], [70.0, 0.0]]), False)
    route, along = routes.Route(np.array([[0.0, 0.0], [70.0, 0.0]]), 2.0), np.linspace(0, 70, 40)
    extras = moving.traffic(place, route, along, rng)
    for i, cars in extras.items():
        camera = np.append(route.at(along[[i]])[0], 1.4)
        assert all(np.linalg.norm(solid.vertices - camera, axis=1).min() > 0.8 for solid in cars)
    firsts = [extras[i][0].vertices.mean(axis=0)[0] for i in range(40) if extras[i]]
    assert len(set(np.round(firsts, 3).tolist())) > 5


# --- files


def test_natural_faults_name_the_frames_and_are_empty_for_a_capture_without_any(tmp_path: Path) -> None:
    events = Events(second_session="end", blur_runs=3)
    rendered_scenes.render_scene(0, tmp_path / "a", 12, TINY, quiet(0, events))
    rendered_scenes.render_scene(0, tmp_path / "b", 4, TINY, quiet(0))
    faults = json.loads((tmp_path / "a" / "natural_faults.json").read_text())
    listed = [frame["file_path"] for frame in json.loads((tmp_path / "a" / "transforms.json").read_text())["frames"]]
    assert {"blur", "foreign"} == {fault["reason"] for fault in faults.values()}
    assert {fault["grade"] for fault in faults.values()} <= {"clear", "mild"}
    foreign = [i for i, name in enumerate(listed) if faults.get(name, {}).get("reason") == "foreign"]
    assert foreign == list(range(foreign[0], 12))
    assert json.loads((tmp_path / "b" / "natural_faults.json").read_text()) == {}


def test_all_of_a_journey_is_masked_as_wanted() -> None:
    shots = [shot for _, shot in rendered_scenes.render_frames(quiet(9), 2, TINY)]
    assert all(shot.mask.all() for shot in shots)


@pytest.mark.parametrize("seed", [3, 5, 6])
def test_the_same_seed_gives_the_same_events(seed: int) -> None:
    recipe = rendered_scenes.draw_recipe(seed)
    once, again = (list(rendered_scenes.render_frames(recipe, 6, TINY)) for _ in range(2))
    for (_, first), (_, second) in zip(once, again, strict=True):
        np.testing.assert_array_equal(first.pixels, second.pixels)
        np.testing.assert_array_equal(first.c2w, second.c2w)
        assert first.fault == second.fault and first.seconds == second.seconds
