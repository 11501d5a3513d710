"""Frames of a video, with the times at which they were taken."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from mtcm_nerfstudio.capture.process.input_images import InputImage

JPEG_QUALITY = 95


def extract_frames(
    video: Path, out: Path, max_frames: int, fps: float | None, advance: Callable[[int, int], None]
) -> list[InputImage]:
    """Write evenly spaced frames of a video as JPEG files and return them in order.

    Frames are turned upright by the video's display matrix, as players do. ``timestamp`` is the frame's own
    presentation time, in seconds from the first frame: also where the frame rate varies.

    Args:
        video: the video file.
        out: an empty folder to write to.
        max_frames: at most so many frames, spread evenly over the whole video.
        fps: frames per second of video to take; None takes all up to ``max_frames``.
        advance: progress callback, called with (frames written, frames in all).

    Raises:
        ValueError: the file is no video, or has no frame that can be decoded.
    """
    times = frame_times(video)
    wanted = [times[i] for i in sample_times(times, max_frames, fps)]
    photos: list[InputImage] = []
    for time, frame in _frames_at(video, wanted):
        image = _upright(frame)
        name = f"frame_{len(photos) + 1:05d}.jpg"
        image.save(out / name, quality=JPEG_QUALITY, subsampling=0)
        photos.append(InputImage(name, image.width, image.height, round(time - times[0], 6)))
        advance(len(photos), len(wanted))
    if not photos:
        raise ValueError(f"{video}: no frame of it can be decoded")
    return photos


def frame_times(video: Path) -> list[float]:
    """Return the presentation times of all frames in seconds, ascending, without decoding them.

    Raises:
        ValueError: the file is no video.
    """
    with _opened(video) as container:
        stream = _video_stream(container, video)
        stamps = [_seconds(packet.pts, stream) for packet in _packets(container, stream)]
    times = sorted(time for time in stamps if time is not None)
    if not times:
        raise ValueError(f"{video}: holds no frames with a time")
    return times


def sample_times(times: Sequence[float], max_frames: int, fps: float | None) -> list[int]:
    """Choose frames: ``fps`` of them per second (all, without it), thinned evenly to ``max_frames``.

    Returns ascending indices into ``times``, the first frame always among them.
    """
    chosen = list(range(len(times)))
    if fps is not None:
        ticks = np.arange(times[0], times[-1] + 1e-9, 1.0 / fps)
        chosen = sorted(set(np.searchsorted(times, ticks - 1e-6).clip(max=len(times) - 1).tolist()))
    if len(chosen) > max_frames:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, max_frames).round().astype(int)]
    return chosen


def _frames_at(video: Path, wanted: Sequence[float]) -> Iterator[tuple[float, VideoFrame]]:
    """Decode a video and yield, for each wanted time, the first frame that is not before it.

    A packet that cannot be decoded costs its own frames only.
    """
    due = 0
    with _opened(video) as container:
        stream = _video_stream(container, video)
        stream.thread_type = "AUTO"
        for frame in _decoded(container, stream):
            time = _seconds(frame.pts, stream)
            if due < len(wanted) and time is not None and time >= wanted[due] - 1e-6:
                yield time, frame
                while due < len(wanted) and wanted[due] <= time + 1e-6:
                    due += 1


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    for packet in _packets(container, stream, with_flush=True):
        try:
            yield from stream.decode(packet)
        except FFmpegError:
            continue


def _packets(container: InputContainer, stream: VideoStream, with_flush: bool = False) -> Iterator[Packet]:
    """Yield the stream's packets up to the end of the file, or to where it is broken."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            return
        if packet.size or with_flush:
            yield packet


def _opened(video: Path) -> InputContainer:
    try:
        return av.open(str(video))
    except (FFmpegError, ValueError) as error:
        raise ValueError(f"{video}: is not a video that can be read") from error


def _video_stream(container: InputContainer, video: Path) -> VideoStream:
    if not container.streams.video:
        raise ValueError(f"{video}: holds no pictures, only sound or data")
    return container.streams.video[0]


def _seconds(pts: int | None, stream: VideoStream) -> float | None:
    return None if pts is None or stream.time_base is None else float(pts * stream.time_base)


def _upright(frame: VideoFrame) -> Image.Image:
    """Apply the rotation that a phone stores beside the pixels (counter-clockwise degrees, multiples of 90)."""
    pixels = frame.to_ndarray(format="rgb24")
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4)))
