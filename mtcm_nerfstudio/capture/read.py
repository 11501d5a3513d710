"""One door for all layouts: which of them a folder has, and the capture in it."""

from pathlib import Path
from typing import Literal

from mtcm_nerfstudio.capture.capture import Capture, Frame, Source, in_temporal_order
from mtcm_nerfstudio.capture.colmap import find_model, read_colmap
from mtcm_nerfstudio.capture.identity import list_identities, read_identity
from mtcm_nerfstudio.capture.images import list_images, mask_beside, read_exif
from mtcm_nerfstudio.capture.transforms import read_transforms

SourceChoice = Literal["auto", "transforms", "colmap", "identity", "photos"]
"""``auto``: transforms.json, else a COLMAP model, else the identity layout, else bare photos."""


def read_capture(data: Path, source: SourceChoice = "auto", identity: str | None = None) -> Capture:
    """Read a capture from a folder (or from a ``transforms.json`` named outright).

    Raises:
        FileNotFoundError: nothing is there, or not what ``source`` asks for.
        ValueError: what is there cannot be read; the message names the file.
    """
    if not data.exists():
        raise FileNotFoundError(f"{data}: no such file or folder")
    if data.is_file():
        if data.suffix.lower() != ".json":
            raise ValueError(f"{data}: is neither a folder nor a transforms.json. Pose it first: ns-mtcm-process")
        return read_transforms(data)
    match detect_source(data, identity) if source == "auto" else source:
        case "transforms":
            if not (data / "transforms.json").is_file():
                raise FileNotFoundError(f"{data}: has no transforms.json")
            return read_transforms(data / "transforms.json")
        case "colmap":
            return read_colmap(data)
        case "identity":
            return read_identity(data, identity)
        case "photos":
            return read_image_folder(data)


def detect_source(data: Path, identity: str | None = None) -> Source:
    """Tell which layout a folder has; an identity that is named asks for the identity layout."""
    if identity is not None:
        return "identity"
    if (data / "transforms.json").is_file():
        return "transforms"
    if find_model(data) is not None:
        return "colmap"
    if list_identities(data):
        return "identity"
    return "photos"


def read_image_folder(data: Path) -> Capture:
    """Read a folder of photos with no poses (``images/`` below it, if there is one).

    Raises:
        FileNotFoundError: there is no image.
    """
    folder = data / "images" if (data / "images").is_dir() else data
    paths = list_images(folder)
    if not paths:
        raise FileNotFoundError(f"{data}: no transforms.json, no COLMAP model, no identity and no images in it")
    return Capture(data, data.resolve().name, "photos", in_temporal_order(_unposed_frame(data, path) for path in paths))


def _unposed_frame(root: Path, path: Path) -> Frame:
    file_path = path.relative_to(root).as_posix()
    exif = read_exif(path)
    return Frame(
        file_path=file_path,
        image_path=path,
        timestamp=exif.timestamp,
        mask_path=mask_beside(root, file_path),
        focal_over_diagonal=exif.focal_over_diagonal,
    )
