"""The scene on viser: cameras in their verdicts' colours, pictures of those near by, the points.

All cameras are drawn in batches: frames of similar inconsistency share a batch, and within it those of one verdict and
colour share a mesh. A threshold that moves changes the frames between its old and its new place and no others, so of
five thousand cameras a few meshes are sent anew. A click is a ray, and ``frusta.picked`` says which camera it met.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.geometry.poses import wxyz_from_matrix
from mtcm_nerfstudio.report.verdict_style import SIGNS
from mtcm_nerfstudio.viewer.capture_scene import CaptureScene
from mtcm_nerfstudio.viewer.colours import CHOSEN, VERDICTS, ColourBy, Rgb, colours_of
from mtcm_nerfstudio.viewer.frusta import Mesh, frusta, nearest_along, on_screen, picked, ray_through, seeing, segments
from mtcm_nerfstudio.viewer.session import State, worst_first
from mtcm_nerfstudio.viewer.thumbnail_cache import ThumbnailCache

_BATCH = 128
_OUTLINED = 600
"""Frames up to which cameras are outlines with a veil; of more, a browser draws filled ones several times as fast."""
_ROOT = "/mtcm"
_OPENCV = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class DisplaySettings:
    """What somebody wants to see."""

    groups: frozenset[str] = frozenset(VERDICTS)
    """Verdicts, and "suggested"."""
    colour_by: ColourBy = "verdict"
    points: bool = True
    thumbnails: bool = True
    """On the cameras near to whoever looks."""
    names: bool = False
    """The same, and on suggested views."""


class SceneNodes:
    """Owns the nodes that show a capture on one viser server."""

    def __init__(
        self, server: Any, capture_scene: CaptureScene, thumbnails: ThumbnailCache, on_pick: Callable[[int], None]
    ) -> None:
        """Draw what does not change.

        Args:
            server: viser's.
            capture_scene: the capture.
            thumbnails: of its frames.
            on_pick: called with the index of a frame that somebody clicked.
        """
        self._api, self._capture_scene, self._thumbnails, self._on_pick = (
            server.scene,
            capture_scene,
            thumbnails,
            on_pick,
        )
        self._drawn: dict[str, tuple[Any, list[Any]]] = {}
        self._poses = self._pickable = capture_scene.claimed()
        self._pointing = False
        self._points = None
        if capture_scene.points is not None and len(capture_scene.points):
            self._points = self._api.add_point_cloud(
                f"{_ROOT}/points",
                points=capture_scene.points.astype(np.float32),
                colors=(150, 150, 150),
                point_size=capture_scene.size / 25,
                point_shape="circle",
            )

    @property
    def poses(self) -> Float[np.ndarray, "frame 4 4"]:
        """Where the frames stand in what is drawn now."""
        return self._poses

    def draw(self, state: State, look: DisplaySettings) -> None:
        """Bring what is drawn in step with a state."""
        self._poses = self._capture_scene.used(state.decisions)
        self._pickable = np.where(self.visible(state, look)[:, None, None], self._poses, np.nan)
        if self._points is not None:
            self._points.visible = look.points
        wanted = {
            **self._batches(state, look),
            **self._suggestions(state, look),
            **self._moves(state, look),
            **self._chosen(state),
            **self._marked(state),
        }
        for name in [name for name in self._drawn if name not in wanted]:
            self._remove(name)
        for name, (content, add) in wanted.items():
            if name not in self._drawn or self._drawn[name][0] != content:
                self._remove(name)
                self._drawn[name] = (content, add(name))

    def visible(self, state: State, look: DisplaySettings) -> np.ndarray:
        """Tell which frames are drawn."""
        asked = np.array([verdict in look.groups for verdict in state.verdicts], dtype=bool)
        return asked & np.isfinite(self._poses).all(axis=(1, 2))

    def _remove(self, name: str) -> None:
        for handle in self._drawn.pop(name, (None, []))[1]:
            handle.remove()

    def _batches(self, state: State, look: DisplaySettings) -> dict[str, tuple[Any, Callable[[str], list[Any]]]]:
        visible, colours = self.visible(state, look), colours_of(state, look.colour_by)
        repaired = [frame.repaired_transform_matrix for frame in state.decisions.frames]
        groups: dict[tuple[int, str, Rgb], list[int]] = defaultdict(list)
        for rank, i in enumerate(worst_first(state.decisions).tolist()):
            if visible[i]:
                groups[rank // _BATCH, state.verdicts[i], colours[i]].append(i)
        outlined = len(visible) <= _OUTLINED
        return {
            f"{_ROOT}/frames/{batch}_{verdict}_{bytes(colour).hex()}": (
                (tuple(members), tuple(repaired[i] for i in members)),
                self._adder(members, verdict, colour, outlined),
            )
            for (batch, verdict, colour), members in groups.items()
        }

    def _adder(self, members: list[int], verdict: str, colour: Rgb, outlined: bool) -> Callable[[str], list[Any]]:
        def add(name: str) -> list[Any]:
            capture_scene = self._capture_scene
            mesh = frusta(
                self._poses[members], capture_scene.tangents[members], capture_scene.size, verdict, solid=not outlined
            )
            looks = ({"wireframe": True}, {"opacity": 0.18}) if outlined else ({"material": "toon3"},)
            handles = [self._mesh(f"{name}_{i}", mesh, colour, **look) for i, look in enumerate(looks)]
            for handle in handles:
                handle.on_click(self._clicked)
            return handles

        return add

    def _mesh(self, name: str, mesh: Mesh, colour: Rgb, **look: Any) -> Any:
        return self._api.add_mesh_simple(name, mesh.vertices, mesh.faces, color=colour, side="double", **look)

    def _clicked(self, event: Any) -> None:
        # The event has a ray, too, but viser 0.2.7 often leaves it at its default.
        camera, place = event.client.camera, event.screen_pos
        direction = ray_through(np.array(camera.wxyz), camera.fov, camera.aspect, (place[0], place[1]))
        origin = np.array(camera.position)
        found = picked(origin, direction, self._pickable, self._capture_scene.tangents, self._capture_scene.size)
        if found is not None:
            self._on_pick(found)

    def point_out(self, how: Literal["place", "box"] | None, on_marked: Callable[..., None]) -> None:
        """Let the next click mark the frames that see a place, or the next rectangle those that stand in it.

        Args:
            how: which of the two; None: neither, after all.
            on_marked: called with the frames' indices, the place (None for a rectangle) and the reason in words.
        """

        def end() -> None:
            if self._pointing:
                self._api.remove_pointer_callback()
            self._pointing = False

        def clicked(event: Any) -> None:
            end()
            camera, (place, *_) = event.client.camera, event.screen_pos
            direction = ray_through(np.array(camera.wxyz), camera.fov, camera.aspect, (place[0], place[1]))
            points = self._capture_scene.points
            point = None if points is None else nearest_along(points, np.array(camera.position), direction)
            if point is None:
                on_marked((), None, "no point of the scene is there")
                return
            seen = np.flatnonzero(seeing(point, self._poses, self._capture_scene.tangents)).tolist()
            on_marked(seen, (float(point[0]), float(point[1]), float(point[2])), "this place is in the picture")

        def boxed(event: Any) -> None:
            end()
            camera, corners = event.client.camera, np.array(event.screen_pos)
            where = on_screen(
                self._pickable[:, :3, 3], np.array(camera.wxyz), np.array(camera.position), camera.fov, camera.aspect
            )
            with np.errstate(invalid="ignore"):
                inside = ((where >= corners.min(axis=0)) & (where <= corners.max(axis=0))).all(axis=1)
            on_marked(np.flatnonzero(inside).tolist(), None, "in the rectangle")

        end()
        if how is not None:
            self._api.on_pointer_event("click" if how == "place" else "rect-select")(
                clicked if how == "place" else boxed
            )
            self._pointing = True

    def _suggestions(self, state: State, look: DisplaySettings) -> dict[str, tuple[Any, Callable[[str], list[Any]]]]:
        poses = self._capture_scene.suggested(state.decisions)
        if "suggested" not in look.groups or not len(poses):
            return {}

        def add(name: str) -> list[Any]:
            tangents = np.tile(np.median(self._capture_scene.tangents, axis=0), (len(poses), 1))
            mesh = frusta(poses, tangents, self._capture_scene.size, "suggested")
            named = state.decisions.suggested if look.names else ()
            labels = [
                self._api.add_label(f"{name}_{i}", f"{SIGNS['suggested']} {view.label or ''}", position=poses[i, :3, 3])
                for i, view in enumerate(named)
            ]
            return [self._mesh(name, mesh, VERDICTS["suggested"], wireframe=True), *labels]

        return {f"{_ROOT}/suggested": ((state.decisions.suggested, look.names), add)}

    def _moves(self, state: State, look: DisplaySettings) -> dict[str, tuple[Any, Callable[[str], list[Any]]]]:
        """Lines from where repaired frames claimed to be to where they are."""
        moved = [i for i, verdict in enumerate(state.verdicts) if verdict == "repaired"]
        if "repaired" not in look.groups or not moved:
            return {}

        def add(name: str) -> list[Any]:
            claimed = self._capture_scene.claimed()[moved]
            there = np.isfinite(claimed).all(axis=(1, 2))
            mesh = segments(claimed[there, :3, 3], self._poses[moved][there, :3, 3])
            return [self._mesh(name, mesh, VERDICTS["repaired"], wireframe=True)] if there.any() else []

        matrices = tuple(state.decisions.frames[i].repaired_transform_matrix for i in moved)
        return {f"{_ROOT}/repairs": ((tuple(moved), matrices), add)}

    def _marked(self, state: State) -> dict[str, tuple[Any, Callable[[str], list[Any]]]]:
        """Outlines about the frames that were pointed out, and lines to what they see."""
        some = [i for i in state.marked if np.isfinite(self._poses[i]).all()]
        if not some:
            return {}

        def add(name: str) -> list[Any]:
            mesh = frusta(
                self._poses[some], self._capture_scene.tangents[some], 1.25 * self._capture_scene.size, "kept"
            )
            handles = [self._mesh(f"{name}_frames", mesh, CHOSEN, wireframe=True)]
            if state.place is not None:
                ends = np.tile(np.array(state.place), (len(some), 1))
                lines = segments(self._poses[some][:, :3, 3], ends)
                handles.append(self._mesh(f"{name}_lines", lines, CHOSEN, wireframe=True))
            return handles

        return {f"{_ROOT}/marked": ((tuple(some), state.place), add)}

    def _chosen(self, state: State) -> dict[str, tuple[Any, Callable[[str], list[Any]]]]:
        """The frame looked at: larger, with its picture and its name."""
        index = state.selected
        if index is None or not np.isfinite(self._poses[index]).all():
            return {}
        pose, verdict = self._poses[index], state.verdicts[index]
        name_of = state.decisions.frames[index].file_path

        def add(name: str) -> list[Any]:
            x, y = self._capture_scene.tangents[index]
            image = self._thumbnails.framed(index, 320, CHOSEN, verdict == "dropped")
            frustum = self._api.add_camera_frustum(
                name,
                fov=float(2.0 * np.arctan(y)),
                aspect=float(x / y),
                scale=1.5 * self._capture_scene.size,
                color=CHOSEN,
                image=image,
                wxyz=wxyz_from_matrix((pose[:3, :3] @ _OPENCV)[None])[0],
                position=pose[:3, 3],
            )
            label = self._api.add_label(f"{name}_name", f"{SIGNS[verdict]} {name_of}", position=pose[:3, 3])
            return [frustum, label]

        return {f"{_ROOT}/chosen": ((index, verdict, tuple(pose.ravel().tolist())), add)}
