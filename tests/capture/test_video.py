import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtcm_nerfstudio.capture.process.video import extract_frames, frame_times, sample_times

WIDTH, HEIGHT = 64, 48
TIMES_MS = (0, 40, 80, 120, 500, 540, 580, 2000, 2040, 2500)
"""A variable frame rate, as phones record."""


def quiet(done: int, total: int) -> None:
    """Nobody is told."""


def write_video(path: Path, times_ms: tuple[int, ...] = TIMES_MS, start_ms: int = 0) -> Path:
    """Frame i is grey of brightness 20·i + 20, with a white bar along its top."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for i, time in enumerate(times_ms):
            pixels = np.full((HEIGHT, WIDTH, 3), 20 * i + 20, np.uint8)
            pixels[:8] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = start_ms + time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(folder: Path, names: list[str]) -> list[int]:
    """Which frame of ``write_video`` each file shows."""
    levels = [np.asarray(Image.open(folder / name).convert("L"))[-10:].mean() for name in names]
    return [round((level - 20) / 20) for level in levels]


@pytest.mark.parametrize("start_ms", [0, 700])
def test_frames_keep_their_own_times(tmp_path: Path, start_ms: int) -> None:
    video = write_video(tmp_path / "Ein Gang ü.mp4", start_ms=start_ms)
    (tmp_path / "out").mkdir()
    photos = extract_frames(video, tmp_path / "out", max_frames=100, fps=None, advance=quiet)
    assert numbers(tmp_path / "out", [photo.name for photo in photos]) == list(range(len(TIMES_MS)))
    np.testing.assert_allclose([photo.timestamp or 0.0 for photo in photos], np.array(TIMES_MS) / 1000, atol=2e-3)
    assert {(photo.width, photo.height) for photo in photos} == {(WIDTH, HEIGHT)}
    assert [photo.name for photo in photos] == sorted(photo.name for photo in photos)


def test_frames_per_second_are_counted_in_time_not_in_frames(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4")
    (tmp_path / "out").mkdir()
    told = []
    photos = extract_frames(video, tmp_path / "out", 100, 2.0, lambda *progress: told.append(progress))
    assert [round((photo.timestamp or 0) * 1000) for photo in photos] == [0, 500, 2000, 2500]
    assert numbers(tmp_path / "out", [photo.name for photo in photos]) == [0, 4, 7, 9]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_phone_videos_are_turned_upright(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", TIMES_MS[:3])
    turned = tmp_path / "turned.mp4"
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, "-v", "error", "-display_rotation", "90", "-i", str(video), "-c", "copy", str(turned)]
    subprocess.run(command, check=True)
    reference = tmp_path / "reference.png"
    subprocess.run([ffmpeg, "-v", "error", "-i", str(turned), "-frames:v", "1", str(reference)], check=True)
    (tmp_path / "out").mkdir()
    photos = extract_frames(turned, tmp_path / "out", 1, None, quiet)
    ours = np.asarray(Image.open(tmp_path / "out" / photos[0].name).convert("L"), dtype=float)
    theirs = np.asarray(Image.open(reference).convert("L"), dtype=float)
    assert ours.shape == theirs.shape == (WIDTH, HEIGHT)
    assert np.abs(ours - theirs).mean() < 8, "ffmpeg turns it the same way"


def test_a_video_that_breaks_off_gives_the_frames_before(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mkv", tuple(range(0, 4000, 40))).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "out").mkdir()
    photos = extract_frames(cut, tmp_path / "out", 1000, None, quiet)
    assert 10 < len(photos) < 90


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00\x00\x00\x18ftypmp42" + bytes(64)])
def test_what_is_no_video_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.mp4: ") as error:
        frame_times(path)
    assert "\n" not in str(error.value)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match="only sound"):
        frame_times(path)


@given(
    gaps=st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60),
    max_frames=st.integers(2, 70),
    fps=st.none() | st.floats(0.1, 60.0),
)
def test_chosen_frames_are_in_order_few_enough_and_begin_with_the_first(
    gaps: list[float], max_frames: int, fps: float | None
) -> None:
    times = np.cumsum([0.0, *gaps]).tolist()
    chosen = sample_times(times, max_frames, fps)
    assert chosen[0] == 0
    assert len(chosen) <= max_frames
    assert chosen == sorted(set(chosen))
    if fps is None and len(times) > max_frames:
        steps = np.diff(chosen)
        assert steps.max() - steps.min() <= 1, "thinned evenly"
        assert chosen[-1] == len(times) - 1
