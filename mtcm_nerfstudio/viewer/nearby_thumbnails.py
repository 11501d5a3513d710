"""Pictures on the cameras near to whoever looks: as many as a browser shows without effort.

Every page has its own camera, and so its own pictures.
"""

import time
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mtcm_nerfstudio.geometry.poses import wxyz_from_matrix
from mtcm_nerfstudio.report.verdict_style import SIGNS
from mtcm_nerfstudio.viewer.capture_scene import CaptureScene
from mtcm_nerfstudio.viewer.colours import Rgb, colours_of
from mtcm_nerfstudio.viewer.scene_nodes import DisplaySettings, SceneNodes
from mtcm_nerfstudio.viewer.session import State
from mtcm_nerfstudio.viewer.thumbnail_cache import ThumbnailCache

_MOST = 64
"""Pictures at a time."""
_SIDE = 128
"""Their longer side in px."""
_SECONDS = 0.25
"""Least time from one choice of pictures to the next."""


class NearbyThumbnails:
    """Owns the pictures that one page shows."""

    def __init__(self, client: Any, scene: SceneNodes, capture_scene: CaptureScene, thumbnails: ThumbnailCache) -> None:
        """Show nothing yet.

        Args:
            client: viser's handle of the page.
            scene: where the frames are drawn.
            capture_scene: the capture.
            thumbnails: of its frames.
        """
        self._client, self._scene, self._capture_scene, self._thumbnails = client, scene, capture_scene, thumbnails
        self._drawn: dict[int, tuple[Any, list[Any]]] = {}
        self._last = 0.0

    def is_due(self) -> bool:
        """Tell whether it is time to choose again, for a camera that moves all the time."""
        return time.monotonic() - self._last >= _SECONDS

    def draw(self, state: State, look: DisplaySettings) -> None:
        """Show the pictures (and the names) of the frames nearest to the page's camera."""
        self._last = time.monotonic()
        wanted: list[int] = []
        if look.thumbnails or look.names:
            wanted = nearest(np.array(self._client.camera.position), self._scene, state, look).tolist()
        colours = colours_of(state, look.colour_by)
        for index in [index for index in self._drawn if index not in wanted]:
            self._remove(index)
        poses = self._scene.poses
        for index in wanted:
            content = (state.verdicts[index], colours[index], poses[index].tobytes(), look.thumbnails, look.names)
            if index not in self._drawn or self._drawn[index][0] != content:
                self._remove(index)
                self._drawn[index] = (content, self._added(index, state, colours[index], look))

    def _remove(self, index: int) -> None:
        for handle in self._drawn.pop(index, (None, []))[1]:
            handle.remove()

    def _added(self, index: int, state: State, colour: Rgb, look: DisplaySettings) -> list[Any]:
        api, pose, size = self._client.scene, self._scene.poses[index], self._capture_scene.size
        dropped = state.verdicts[index] == "dropped"
        handles = []
        if look.thumbnails and (image := self._thumbnails.framed(index, _SIDE, colour, dropped)) is not None:
            x, y = self._capture_scene.tangents[index]
            handles.append(
                api.add_image(
                    f"/mtcm/pictures/{index}",
                    image,
                    render_width=2.0 * float(x) * size,
                    render_height=2.0 * float(y) * size,
                    # viser's pictures stand in x (right) and y (down), as OpenCV's
                    wxyz=wxyz_from_matrix((pose[:3, :3] @ np.diag([1.0, -1.0, -1.0]))[None])[0],
                    position=pose[:3, 3] - size * pose[:3, 2],
                )
            )
        if look.names:
            text = f"{SIGNS[state.verdicts[index]]} {state.decisions.frames[index].file_path.rsplit('/', 1)[-1]}"
            handles.append(api.add_label(f"/mtcm/names/{index}", text, position=pose[:3, 3]))
        return handles


def nearest(
    position: Float[np.ndarray, "3"], scene: SceneNodes, state: State, look: DisplaySettings, most: int = _MOST
) -> Int[np.ndarray, " k"]:
    """Return the drawn frames that are nearest to a place, in no order, at most ``most``."""
    drawn = np.flatnonzero(scene.visible(state, look))
    away = np.linalg.norm(scene.poses[drawn, :3, 3] - position, axis=1)
    return drawn[np.argsort(away, kind="stable")[:most]]
