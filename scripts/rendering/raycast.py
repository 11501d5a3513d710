"""Pictures of a scene by casting rays (Embree, through embreex, which nerfstudio brings by way of viser)."""

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Bool, Float

from rendering.shapes import Part
from rendering.textures import GAMMA, Atlas

BAND_RAYS = 20000
"""Rays that are shaded at once; what they need fits into the processor's cache."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera, in pixels."""

    width: int
    height: int
    focal: float
    cx: float
    cy: float


@dataclass(frozen=True, eq=False)
class Light:
    """How a scene is lit."""

    towards_sun: Float[np.ndarray, "3"]
    """Unit vector."""
    sun: Float[np.ndarray, "3"]
    """Colour times strength of the direct light."""
    ambient: Float[np.ndarray, "3"]
    """Colour times strength of the light from everywhere; half of it comes from below."""
    sky: Float[np.ndarray, "2 3"]
    """Colour of the background at the horizon and overhead."""
    shadows: bool = True
    lamps: tuple["Lamp", ...] = ()


@dataclass(frozen=True)
class Lamp:
    """A lamp that shines through whatever stands in its way, up to ``reach``."""

    at: tuple[float, float, float]
    strength: float
    """Light on a surface that faces the lamp, close by."""
    reach: float
    """Distance at which its light has faded to nothing, in the scene's units."""


class Stage:
    """A scene that is ready to be photographed."""

    def __init__(self, parts: list[Part], atlas: Atlas, detail_texture: int, sky_texture: int, light: Light) -> None:
        """Gather all triangles of the parts; ``detail_texture`` breaks up the repetition of every other texture."""
        self.atlas, self.light = atlas, light
        self.detail_texture, self.sky_texture = detail_texture, sky_texture
        counts = [len(p.faces) for p in parts]
        offsets = np.cumsum([0] + [len(p.vertices) for p in parts[:-1]])
        vertices = np.concatenate([p.vertices for p in parts]).astype(np.float32)
        faces = np.concatenate([p.faces + offset for p, offset in zip(parts, offsets, strict=True)])
        self.normals = np.concatenate([p.corner_normals for p in parts]).astype(np.float32)
        self.uv = np.concatenate([p.corner_uv for p in parts]).astype(np.float32)
        self.texture = np.repeat([p.texture for p in parts], counts)
        self.units_per_tile = np.repeat([p.units_per_tile for p in parts], counts).astype(np.float32)
        self.is_subject = np.repeat([p.is_subject for p in parts], counts)
        self._scene = EmbreeScene()
        self._mesh = TriangleMesh(self._scene, vertices, faces.astype(np.int32))

    def render(
        self, c2w: Float[np.ndarray, "4 4"], camera: Camera, supersampling: int = 2
    ) -> tuple[Float[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
        """Return the linear picture from an OpenGL pose, before exposure, and the mask of the subject."""
        directions = rays(c2w, camera, supersampling)
        origins = np.tile(c2w[:3, 3].astype(np.float32), (len(directions), 1))
        pixel_angle = 1.0 / (camera.focal * supersampling)
        bands = [
            self._radiance(origins[i : i + BAND_RAYS], directions[i : i + BAND_RAYS], pixel_angle)
            for i in range(0, len(directions), BAND_RAYS)
        ]
        radiance, subject = (np.concatenate(column) for column in zip(*bands, strict=True))
        shape = (camera.height, supersampling, camera.width, supersampling)
        picture = radiance.reshape(*shape, 3).mean(axis=(1, 3))
        return picture, subject.reshape(shape).mean(axis=(1, 3)) >= 0.5

    def _radiance(
        self, origins: np.ndarray, directions: np.ndarray, pixel_angle: float
    ) -> tuple[np.ndarray, np.ndarray]:
        hits = self._scene.run(origins, directions, output=1)
        triangle = hits["primID"]
        seen = np.flatnonzero(triangle >= 0)
        missed = np.flatnonzero(triangle < 0)
        radiance = np.empty((len(directions), 3), dtype=np.float32)
        subject = np.zeros(len(directions), dtype=np.float32)
        radiance[missed] = self._sky(directions[missed])
        if len(seen) == 0:
            return radiance, subject
        triangle, distance = triangle[seen], hits["tfar"][seen]
        u, v = hits["u"][seen, None], hits["v"][seen, None]
        corners = self.normals[triangle]
        normal = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
        normal /= np.sqrt(np.einsum("ij,ij->i", normal, normal))[:, None] + 1e-12
        towards_eye = -np.einsum("ij,ij->i", normal, directions[seen])
        normal = np.where(towards_eye[:, None] < 0, -normal, normal)
        corners = self.uv[triangle]
        uv = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
        albedo = self._albedo(triangle, uv, distance * pixel_angle / np.sqrt(np.abs(towards_eye) + 0.05))
        at = origins[seen] + directions[seen] * distance[:, None]
        radiance[seen] = albedo * self._irradiance(at, normal)
        subject[seen] = self.is_subject[triangle]
        return radiance, subject

    def _albedo(self, triangle: np.ndarray, uv: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Read the textures; ``footprint`` is the width of a ray on the surface, in the scene's units."""
        texels = footprint / self.units_per_tile[triangle] * 512.0
        albedo = self.atlas.read(self.texture[triangle], uv, np.log2(np.maximum(texels, 1e-6)))
        coarse = self.atlas.read_one_level(self.detail_texture, 0.237 * uv + 0.31, 2)
        return albedo * (0.45 + 1.1 * coarse)

    def _irradiance(self, at: np.ndarray, normal: np.ndarray) -> np.ndarray:
        light = self.light
        lambert = np.maximum(normal @ light.towards_sun.astype(np.float32), 0.0)
        if light.shadows:
            facing = np.flatnonzero(lambert > 0)
            start = at[facing] + 2e-3 * normal[facing]
            sunward = np.tile(light.towards_sun.astype(np.float32), (len(facing), 1))
            lambert[facing[self._scene.run(start, sunward, query="OCCLUDED") >= 0]] = 0.0
        hemisphere = 0.75 + 0.25 * normal[:, 2:]
        total = lambert[:, None] * light.sun.astype(np.float32) + hemisphere * light.ambient.astype(np.float32)
        for lamp in light.lamps:
            _add_lamp(total, lamp, at, normal)
        return total

    def hit_distance(self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "3"]) -> float:
        """Return how far a ray goes before it meets a surface; infinity for the sky."""
        hits = self._scene.run(origin[None].astype(np.float32), direction[None].astype(np.float32), output=1)
        return float(hits["tfar"][0]) if hits["primID"][0] >= 0 else float("inf")

    def _sky(self, directions: np.ndarray) -> np.ndarray:
        """Colour where a ray meets nothing: a gradient with clouds, fixed to the world."""
        if len(directions) == 0:
            return np.empty((0, 3), dtype=np.float32)
        height = np.clip(directions[:, 2:], 0.0, 1.0)
        colour = self.light.sky[0] + np.sqrt(height) * (self.light.sky[1] - self.light.sky[0])
        clouds_uv = directions[:, :2] / (0.35 + np.abs(directions[:, 2:])) * 0.5
        clouds = self.atlas.read_one_level(self.sky_texture, clouds_uv, 1)
        return (colour * (0.6 + 0.8 * clouds)).astype(np.float32)


def _add_lamp(total: np.ndarray, lamp: Lamp, at: np.ndarray, normal: np.ndarray) -> None:
    """Add a lamp's light, in place, to the points within its reach."""
    towards = np.array(lamp.at, dtype=np.float32) - at
    squared = np.einsum("ij,ij->i", towards, towards)
    near = np.flatnonzero(squared < lamp.reach**2)
    if len(near) == 0:
        return
    towards, squared = towards[near], squared[near]
    facing = np.maximum(np.einsum("ij,ij->i", towards, normal[near]) / np.sqrt(squared + 1e-6), 0.0)
    fading = (1.0 - squared / lamp.reach**2) ** 2
    total[near] += (np.float32(lamp.strength) * (0.25 + 0.75 * facing) * fading)[:, None]


def rays(c2w: Float[np.ndarray, "4 4"], camera: Camera, supersampling: int) -> Float[np.ndarray, "ray 3"]:
    """Return the directions through all samples of a picture, row by row; pixel (0, 0) has its centre at (½, ½)."""
    x = (np.arange(camera.width * supersampling) + 0.5) / supersampling
    y = (np.arange(camera.height * supersampling) + 0.5) / supersampling
    grid_x, grid_y = np.meshgrid((x - camera.cx) / camera.focal, (y - camera.cy) / camera.focal)
    local = np.stack([grid_x, -grid_y, -np.ones_like(grid_x)], axis=-1).reshape(-1, 3)
    world = local @ c2w[:3, :3].T
    return np.ascontiguousarray(world / np.linalg.norm(world, axis=1, keepdims=True), dtype=np.float32)


def developed(
    linear: Float[np.ndarray, "height width 3"],
    exposure: float | Float[np.ndarray, "3"],
    noise: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Turn light into an 8-bit picture: exposure, a soft shoulder, gamma, and sensor noise of ``noise`` (of 1).

    ``exposure`` is one gain, or one each for red, green and blue.
    """
    light = np.maximum(linear * exposure, 0.0)
    shoulder = 0.6 + 0.4 * (1.0 - np.exp(-(light - 0.6) / 0.4))
    stored = np.where(light < 0.6, light, shoulder) ** (1.0 / GAMMA)
    stored = stored + noise * (0.5 + np.sqrt(stored)) * rng.standard_normal(stored.shape)
    return (np.clip(stored, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
