"""Builds tiny real captures on disk: images, poses, and every layout that the package reads."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

from mtcm_nerfstudio.geometry.poses import colmap_from_c2w

WIDTH, HEIGHT, FOCAL = 64, 48, 60.0


@dataclass(frozen=True)
class Similarity:
    """x → scale · rotation · x + shift, applied to a world."""

    rotation: np.ndarray
    shift: np.ndarray
    scale: float

    def move(self, c2w: np.ndarray) -> np.ndarray:
        moved = c2w.copy()
        moved[:, :3, :3] = self.rotation @ c2w[:, :3, :3]
        moved[:, :3, 3] = self.scale * c2w[:, :3, 3] @ self.rotation.T + self.shift
        return moved


def random_similarity(seed: int) -> Similarity:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return Similarity(q * np.sign(np.linalg.det(q)), rng.normal(size=3) * 10, float(rng.uniform(0.05, 20)))


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """An OpenGL camera-to-world matrix at ``position`` that looks at ``target``, z up."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    c2w[:3, 3] = position
    return c2w


def orbit(count: int, turn: float = 1.5 * np.pi) -> np.ndarray:
    """Poses of a hand-like walk around the origin: an arc with slow changes of height and distance."""
    t = np.linspace(0.0, 1.0, count)
    angle, radius, height = turn * t, 3.0 + 0.3 * np.sin(5 * t), 1.0 + 0.4 * np.cos(3 * t)
    positions = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    return np.array([look_at(position, np.array([0.0, 0.0, 0.3])) for position in positions]).reshape(-1, 4, 4)


def picture(i: int, seed: int = 0) -> Image.Image:
    """A textured picture that changes slowly with ``i``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / 8.0
    waves = rng.uniform(0.5, 2, (3, 2))
    channels = [127 + 120 * np.sin(x * a + i * 0.1 * b) * np.cos(y * b + i * 0.07) for a, b in waves]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def names(count: int) -> list[str]:
    """Names without padding, so that natural order matters."""
    return [f"frame_{i + 1}.jpg" for i in range(count)]


def write_images(folder: Path, count: int, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names(count)):
        picture(i, seed).save(folder / name, quality=95)


def write_transforms(root: Path, c2w: np.ndarray, images: bool = True, **meta) -> Path:
    """A capture with a transforms.json; returns its folder."""
    count = len(c2w)
    if images:
        write_images(root / "images", count)
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": pose.tolist()} for name, pose in zip(names(count), c2w)
    ]
    record = {
        "camera_model": "OPENCV",
        **{"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT},
        **meta,
        "frames": frames,
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "transforms.json").write_text(json.dumps(record))
    return root


def edit_transforms(root: Path, edit) -> None:
    """Load a capture's transforms.json, let ``edit`` change it, and write it back."""
    path = root / "transforms.json"
    meta = json.loads(path.read_text())
    edit(meta)
    path.write_text(json.dumps(meta))


def write_colmap(root: Path, c2w: np.ndarray, text: bool = False, model: str = "sparse/0", images: bool = True) -> Path:
    """A capture with a COLMAP model; returns its folder."""
    count = len(c2w)
    if images:
        write_images(root / "images", count)
    folder = root / model
    folder.mkdir(parents=True, exist_ok=True)
    numbers = f"{WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}"
    (folder / "cameras.txt").write_text(f"1 PINHOLE {numbers}\n")
    (folder / "points3D.txt").write_text("")
    lines = []
    for i, (name, pose) in enumerate(zip(names(count), c2w), start=1):
        wxyz, translation = colmap_from_c2w(pose)
        values = " ".join(repr(float(value)) for value in (*wxyz, *translation))
        lines.append(f"{i} {values} 1 {name}\n\n")
    (folder / "images.txt").write_text("".join(lines))
    if not text:
        reconstruction = pycolmap.Reconstruction(str(folder))
        for file in folder.glob("*.txt"):
            file.unlink()
        reconstruction.write_binary(str(folder))
    return root


def write_identity(data: Path, identity: str, c2w: np.ndarray, images: bool = True) -> Path:
    """A capture in the identity layout; returns the data folder."""
    count = len(c2w)
    if images:
        write_images(data / "raw_images" / identity, count)
    entries = {}
    for name, pose in zip(names(count), c2w):
        wxyz, translation = colmap_from_c2w(pose)
        entries[name] = {"qvec": wxyz.tolist(), "tvec": translation.tolist(), "camera_id": 1}
    camera = {"model": "PINHOLE", "width": WIDTH, "height": HEIGHT, "params": [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]}
    folder = data / "metadata" / identity
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "poses.json").write_text(json.dumps({"images": entries, "cameras": {"1": camera}}))
    return data
