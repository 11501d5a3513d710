"""Photos that are to be posed: which files of a folder they are, and which of them can be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtcm_nerfstudio.capture.capture import natural_key
from mtcm_nerfstudio.capture.images import IMAGE_SUFFIXES, UnreadableImageError, list_images, read_exif, read_rgb

UNREADABLE_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf"})
"""Photos that need a decoder which is not here; they are named, not passed over."""


@dataclass(frozen=True)
class InputImage:
    """An input image that is to be registered."""

    name: str
    """POSIX path relative to the folder of the photos, unique."""
    width: int
    height: int
    timestamp: float | None = None
    """Seconds: of the camera's clock for a photo, from its beginning for a video."""
    focal_over_diagonal: float | None = None
    """From EXIF's 35-mm-equivalent focal length (unitless)."""

    @property
    def camera_key(self) -> tuple[int, int, float | None]:
        """Photos with equal keys can come from one camera at one zoom."""
        return self.width, self.height, self.focal_over_diagonal


def input_folder(data: Path) -> Path:
    """Return the folder that names count from: ``data/images`` where a capture's layout has it, else ``data``."""
    return data / "images" if (data / "images").is_dir() else data


def find_input_images(folder: Path, leave_out: Path) -> list[Path]:
    """List the photos below a folder in natural order, without those below ``leave_out``.

    Raises:
        FileNotFoundError: there are none; the message says what there is instead.
    """
    skipped = leave_out.resolve()
    photos = [path for path in list_images(folder) if path.is_file() and skipped not in path.resolve().parents]
    if not photos:
        raise FileNotFoundError(f"{folder}: no photos in it ({', '.join(sorted(IMAGE_SUFFIXES))}){_instead(folder)}")
    return sorted(photos, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def undecodable_images(folder: Path) -> list[Path]:
    """List camera files below a folder in formats that need a decoder which is not here (HEIC, raw)."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in UNREADABLE_SUFFIXES)


def read_input_images(
    folder: Path, paths: Sequence[Path], advance: Callable[[int], None]
) -> tuple[list[InputImage], list[str]]:
    """Decode every photo once; return those that can be, and the names of those that cannot.

    COLMAP takes a photo that is cut short for one without features; here it is named instead.
    """
    photos, unreadable = [], []
    for done, path in enumerate(paths, start=1):
        name = path.relative_to(folder).as_posix()
        try:
            width, height = read_rgb(path).size
            exif = read_exif(path)
            photos.append(InputImage(name, width, height, exif.timestamp, exif.focal_over_diagonal))
        except (UnreadableImageError, OSError):
            unreadable.append(name)
        advance(done)
    return photos, unreadable


def _instead(folder: Path) -> str:
    other = undecodable_images(folder)
    return f"; convert {other[0].name} and {len(other) - 1} more to JPEG first" if other else ""
