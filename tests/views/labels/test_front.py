"""The front of a subject is where its face is seen from. The face is drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.views.labels.face_detection import face_directions, largest_face
from mtcm_nerfstudio.views.labels.front import front_by_face
from mtcm_nerfstudio.views.labels.pose_labels import pose_labels

SIZE, FOCAL = 400, 500.0
LENS = Intrinsics("PINHOLE", SIZE, SIZE, FOCAL, FOCAL, SIZE / 2, SIZE / 2, ())
STRAIGHT_ON = 40.0


def drawn_face() -> np.ndarray:
    """A face as a child draws it, 320 pixels square."""
    page = np.full((320, 320), 150, np.uint8)
    cv2.ellipse(page, (160, 160), (70, 95), 0, 0, 360, 205, -1)
    for side in (-1, 1):
        eye = (160 + side * 28, 138)
        cv2.ellipse(page, (eye[0], eye[1] - 14), (20, 5), 0, 180, 360, 70, -1)
        cv2.ellipse(page, eye, (15, 8), 0, 0, 360, 235, -1)
        cv2.circle(page, eye, 7, 40, -1)
        cv2.ellipse(page, (eye[0], eye[1] + 3), (20, 13), 0, 0, 360, 150, 3)
    cv2.ellipse(page, (160, 172), (11, 22), 0, 0, 360, 225, -1)
    cv2.ellipse(page, (160, 192), (15, 6), 0, 0, 360, 130, -1)
    cv2.ellipse(page, (160, 215), (28, 9), 0, 0, 360, 110, -1)
    cv2.ellipse(page, (160, 75), (75, 40), 0, 180, 360, 50, -1)
    return cv2.GaussianBlur(page, (0, 0), 2)


def around(azimuths: np.ndarray) -> np.ndarray:
    """OpenGL cameras at a distance of 3 about the origin, z up, which look at it."""
    poses = []
    for turn in np.radians(azimuths):
        z = np.array([np.cos(turn), np.sin(turn), 0.0])
        x = np.array([-np.sin(turn), np.cos(turn), 0.0])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = np.stack([x, [0.0, 0.0, 1.0], z], axis=1), 3.0 * z
        poses.append(pose)
    return np.stack(poses)


def photographed(c2w: np.ndarray, board: np.ndarray) -> np.ndarray:
    """A picture of the face, drawn on a board whose corners (top left first, clockwise) are in the world."""
    local = (board - c2w[:3, 3]) @ c2w[:3, :3] * [1.0, -1.0, -1.0]
    page = np.float32([[0, 0], [320, 0], [320, 320], [0, 320]])
    grey = np.full((SIZE, SIZE), 110, np.uint8)
    if (local[:, 2] <= 0.1).any():
        return grey
    pixels = np.float32(local[:, :2] / local[:, 2:] * FOCAL + SIZE / 2)
    normal = np.cross(board[1] - board[0], board[3] - board[0])
    if (board.mean(axis=0) - c2w[:3, 3]) @ normal < 0:
        return grey  # the back of the board is blank
    picture = cv2.warpPerspective(drawn_face(), cv2.getPerspectiveTransform(page, pixels), (SIZE, SIZE), grey,
                                  flags=cv2.INTER_AREA, borderMode=cv2.BORDER_TRANSPARENT)  # fmt: skip
    return np.asarray(picture)


def board_at(middle: np.ndarray, azimuth: float, size: float = 1.2) -> np.ndarray:
    """A board that looks out at an azimuth."""
    turn = np.radians(azimuth)
    right = np.array([-np.sin(turn), np.cos(turn), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    return np.stack([middle + 0.5 * size * (a * right + b * up) for a, b in ((-1, 1), (1, 1), (1, -1), (-1, -1))])


def frames_of(folder: Path, c2w: np.ndarray, board: np.ndarray) -> list[Frame]:
    folder.mkdir(exist_ok=True)
    for i, pose in enumerate(c2w):
        Image.fromarray(photographed(pose, board)).convert("RGB").save(folder / f"{i}.png")
    return [Frame(f"{i}.png", folder / f"{i}.png", c2w=pose, intrinsics=LENS) for i, pose in enumerate(c2w)]


def front_of(frames: list[Frame], c2w: np.ndarray, cache: Cache) -> int | None:
    return front_by_face(
        c2w, np.ones(len(c2w), dtype=bool), lambda some: face_directions([frames[i] for i in some], cache)
    )


def test_a_drawn_face_is_found_in_its_middle_and_none_on_a_blank_page():
    np.testing.assert_allclose(largest_face(drawn_face()), [160, 160], atol=12)
    assert np.isnan(largest_face(np.full((200, 200), 128, np.uint8))).all()


def test_the_front_is_where_the_face_is_seen_from_and_the_labels_say_so(tmp_path):
    azimuths = np.arange(0.0, 360.0, 12.0)
    c2w = around(azimuths)
    frames = frames_of(tmp_path / "photos", c2w, board_at(np.zeros(3), STRAIGHT_ON))
    front = front_of(frames, c2w, Cache(tmp_path / "cache.sqlite"))
    assert front is not None and abs(azimuths[front] - STRAIGHT_ON) <= 12.0
    words = pose_labels(c2w, front)
    assert words[front] == "front" and words[(front + 15) % 30] == "back"


def test_a_face_on_the_wall_behind_is_no_front(tmp_path):
    c2w = around(np.arange(0.0, 360.0, 12.0))
    wall = board_at(np.array([-9.0, 0.0, 0.0]), 0.0, size=4.0)
    frames = frames_of(tmp_path / "photos", c2w, wall)
    cache = Cache(tmp_path / "cache.sqlite")
    assert np.isfinite(face_directions(frames, cache)).all(axis=1).sum() >= 3, "the cascade does see it"
    assert front_of(frames, c2w, cache) is None


def test_nobody_looks_for_faces_where_there_is_no_subject():
    c2w = np.tile(np.eye(4), (12, 1, 1))
    c2w[:, 0, 3] = np.arange(12)

    def never(some: np.ndarray) -> np.ndarray:
        raise AssertionError(some)

    assert front_by_face(c2w, np.ones(12, dtype=bool), never) is None


@pytest.mark.parametrize("seen_from", [range(30), (0, 1, 2, 15, 16, 17), (0, 10, 20)])
def test_what_is_seen_from_several_sides_is_no_face(seen_from):
    c2w = around(np.arange(0.0, 360.0, 12.0))
    rays = np.full((30, 2), np.nan)
    rays[list(seen_from)] = 0.0
    assert front_by_face(c2w, np.ones(30, dtype=bool), lambda some: rays[some]) is None


@pytest.mark.parametrize("seed", range(3))
def test_finds_here_and_there_are_not_believed(seed):
    rng = np.random.default_rng(seed)
    c2w = around(np.arange(0.0, 360.0, 12.0))
    anywhere = rng.uniform(-0.4, 0.4, (len(c2w), 2))
    anywhere[rng.random(len(c2w)) < 0.7] = np.nan
    assert front_by_face(c2w, np.ones(len(c2w), dtype=bool), lambda some: anywhere[some]) is None


def test_a_missing_image_or_lens_shows_no_face(tmp_path):
    c2w = around(np.array([STRAIGHT_ON]))
    frame = frames_of(tmp_path / "photos", c2w, board_at(np.zeros(3), STRAIGHT_ON))[0]
    cache = Cache(tmp_path / "cache.sqlite")
    gone = Frame("gone.png", tmp_path / "gone.png", c2w=c2w[0], intrinsics=LENS)
    blind = Frame("0.png", frame.image_path, c2w=c2w[0])
    rays = face_directions([frame, gone, blind], cache)
    np.testing.assert_allclose(rays[0], [0.0, 0.0], atol=0.05)
    assert np.isnan(rays[1:]).all()
    np.testing.assert_array_equal(face_directions([frame], cache), rays[:1])
