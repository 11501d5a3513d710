"""Solid shapes for rendered scenes, and how textures lie on them. Units are the scene's; z is up."""

from dataclasses import dataclass, replace

import numpy as np
import trimesh
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation


@dataclass(frozen=True, eq=False)
class Part:
    """One textured solid of a scene."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    corner_normals: Float[np.ndarray, "f 3 3"]
    corner_uv: Float[np.ndarray, "f 3 2"]
    """Texture coordinates in tiles."""
    texture: int
    """Index into the scene's atlas."""
    units_per_tile: float
    """How much of the world one tile of the texture covers."""
    is_subject: bool = False
    is_movable: bool = False
    """Whether it may stand elsewhere in a second session."""


def torus_knot(p: int, q: int, tube: float) -> trimesh.Trimesh:
    """Return a (p, q) torus knot of overall radius about 1: a closed tube around p·q-fold windings."""
    t = np.linspace(0.0, 2.0 * np.pi, 240, endpoint=False)
    centre = np.stack(
        [(1 + 0.4 * np.cos(q * t)) * np.cos(p * t), (1 + 0.4 * np.cos(q * t)) * np.sin(p * t), 0.4 * np.sin(q * t)], 1
    )
    tangent = np.roll(centre, -1, axis=0) - np.roll(centre, 1, axis=0)
    side = np.cross(tangent, centre + np.array([0.0, 0.0, 1e-3]))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, tangent)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    around = np.linspace(0.0, 2.0 * np.pi, 20, endpoint=False)
    ring = np.cos(around)[None, :, None] * side[:, None] + np.sin(around)[None, :, None] * up[:, None]
    vertices = (centre[:, None] + tube * ring).reshape(-1, 3) / 1.4
    return trimesh.Trimesh(vertices, _grid_faces(len(t), len(around)), process=False)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Triangles of a grid that closes on itself both ways."""
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = (i + 1) % rows * columns + j, (i + 1) % rows * columns + (j + 1) % columns
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def superellipsoid(exponent_ns: float, exponent_ew: float) -> trimesh.Trimesh:
    """Return a rounded shape between a cube and an octahedron, of radius about 1 (Barr 1981)."""
    mesh = trimesh.creation.icosphere(subdivisions=4)
    x, y, z = mesh.vertices.T
    power = 2.0 / exponent_ew, 2.0 / exponent_ns
    radial = (np.abs(x) ** power[0] + np.abs(y) ** power[0]) ** (exponent_ew / exponent_ns)
    size = (radial + np.abs(z) ** power[1]) ** (-exponent_ns / 2.0)
    return trimesh.Trimesh(mesh.vertices * size[:, None], mesh.faces, process=False)


def random_solid(rng: np.random.Generator) -> trimesh.Trimesh:
    """Draw a solid of radius about 1."""
    kind = int(rng.integers(8))
    if kind == 0:
        return trimesh.creation.box(rng.uniform(0.7, 1.6, 3))
    if kind == 1:
        return trimesh.creation.torus(0.7, rng.uniform(0.2, 0.35), major_sections=80, minor_sections=32)
    if kind == 2:
        return trimesh.creation.icosphere(subdivisions=4)
    if kind == 3:
        p, q = ((2, 3), (3, 2), (2, 5))[int(rng.integers(3))]
        return torus_knot(p, q, rng.uniform(0.15, 0.28))
    if kind == 4:
        return trimesh.creation.cylinder(rng.uniform(0.4, 0.8), rng.uniform(0.8, 1.8), sections=64)
    if kind == 5:
        return trimesh.creation.cone(rng.uniform(0.5, 0.9), rng.uniform(1.0, 1.8), sections=64)
    if kind == 6:
        return trimesh.creation.capsule(rng.uniform(0.5, 1.0), rng.uniform(0.3, 0.5), count=[48, 48])
    return superellipsoid(rng.uniform(0.3, 1.8), rng.uniform(0.3, 1.8))


def bumped(mesh: trimesh.Trimesh, rng: np.random.Generator, height: float) -> trimesh.Trimesh:
    """Move each vertex along its normal by a smooth random amount of about ``height``."""
    vertices = np.asarray(mesh.vertices)
    waves = rng.normal(0.0, 4.0, (12, 3))
    phase = rng.uniform(0.0, 2.0 * np.pi, 12)
    offset = np.sin(vertices @ waves.T + phase).mean(axis=1) * height * np.sqrt(12.0)
    return trimesh.Trimesh(vertices + offset[:, None] * mesh.vertex_normals, mesh.faces, process=False)


def placed(
    mesh: trimesh.Trimesh, size: float, rotation: Rotation, at: Float[np.ndarray, "3"], on_ground: bool = True
) -> trimesh.Trimesh:
    """Scale a mesh to a bounding radius of ``size``, turn it, and set it on ``at`` (by its lowest point, or centre)."""
    centred = np.asarray(mesh.vertices) - mesh.bounds.mean(axis=0)
    vertices = rotation.apply(centred * size / np.linalg.norm(centred, axis=1).max())
    lift = -vertices[:, 2].min() if on_ground else 0.0
    return trimesh.Trimesh(vertices + at + np.array([0.0, 0.0, lift]), mesh.faces, process=False)


def moved(solid: Part, offset: Float[np.ndarray, "3"], turn_radians: float = 0.0) -> Part:
    """Turn a part about the z axis and shift it by ``offset``; its texture goes with it."""
    turn = Rotation.from_euler("z", turn_radians)
    normals = turn.apply(solid.corner_normals.reshape(-1, 3)).reshape(solid.corner_normals.shape)
    return replace(solid, vertices=turn.apply(solid.vertices) + offset, corner_normals=normals)


def part(
    mesh: trimesh.Trimesh,
    texture: int,
    units_per_tile: float,
    rng: np.random.Generator,
    is_subject: bool = False,
) -> Part:
    """Lay a texture on a mesh: each triangle is projected along the axis that it faces most."""
    faces = np.asarray(mesh.faces)
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    face_normals = np.asarray(mesh.face_normals)
    corner_normals = np.asarray(mesh.vertex_normals)[faces]
    # An edge sharper than 40° stays an edge; anything flatter is shaded round.
    sharp = (corner_normals * face_normals[:, None]).sum(axis=2, keepdims=True) < np.cos(np.radians(40.0))
    corner_normals = np.where(sharp, face_normals[:, None], corner_normals)
    axis = np.argmax(np.abs(face_normals), axis=1)
    towards = (face_normals[np.arange(len(faces)), axis] > 0).astype(int)
    kept_axes = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    uv = np.take_along_axis(vertices[faces], np.repeat(kept_axes[:, None], 3, axis=1), axis=2) / units_per_tile
    shift = rng.uniform(0.0, 2.0, (3, 2, 2))[axis, towards]
    uv = uv * np.array([1.0, -1.0]) + shift[:, None]
    return Part(vertices, faces, corner_normals, uv, texture, units_per_tile, is_subject)
