"""A capture on a viser server: session, scene, panel and pictures tied together, drawn by one thread.

Whatever happens only says that something is to be drawn. The thread draws the newest state, so a slider that moves
faster than that skips what nobody would have seen.
"""

import logging
import threading
from typing import Any, Literal

import numpy as np

from mtcm_nerfstudio.geometry.poses import wxyz_from_matrix
from mtcm_nerfstudio.viewer.capture_scene import CaptureScene
from mtcm_nerfstudio.viewer.nearby_thumbnails import NearbyThumbnails
from mtcm_nerfstudio.viewer.panel import Panel
from mtcm_nerfstudio.viewer.scene_nodes import SceneNodes
from mtcm_nerfstudio.viewer.session import Session
from mtcm_nerfstudio.viewer.thumbnail_cache import ThumbnailCache

_LOG = logging.getLogger(__name__)
_FILE_SECONDS = 1.0
"""How often the file is looked at for what another program wrote."""


class CaptureViewer:
    """Shows a session to everybody who opens a viser server."""

    def __init__(
        self,
        server: Any,
        session: Session,
        capture_scene: CaptureScene,
        thumbnails: ThumbnailCache,
        table: str | None = None,
        thumbnails_at_start: bool = True,
    ) -> None:
        """Build everything and begin to draw.

        Args:
            server: viser's; the controls go to whatever container is open on it.
            session: what is shown.
            capture_scene: its capture.
            thumbnails: of its frames.
            table: address of the page with the table; None where this is a part of it.
            thumbnails_at_start: whether cameras show their pictures until somebody says otherwise.
        """
        self._server, self._session = server, session
        self._capture_scene, self._thumbnails = capture_scene, thumbnails
        self._scene = SceneNodes(server, capture_scene, thumbnails, session.select)
        self._panel = Panel(
            server.gui, session, thumbnails, self.redraw, self.fly_to_selected, table, thumbnails_at_start
        )
        self._pages: dict[int, NearbyThumbnails] = {}
        self._due, self._stopped = threading.Event(), threading.Event()
        server.on_client_connect(self._opened)
        server.on_client_disconnect(lambda client: self._pages.pop(client.client_id, None))
        self._unsubscribe = session.subscribe(self.redraw)
        self._threads = [
            threading.Thread(target=work, name=f"mtcm viewer: {work.__name__}", daemon=True)
            for work in (self._draw, self._watch)
        ]
        self.redraw()
        for thread in self._threads:
            thread.start()

    def redraw(self) -> None:
        """Say that something is to be drawn."""
        self._due.set()

    def fly_to_selected(self, client: Any = None) -> None:
        """Fly a page (by default every page) to where the frame that is looked at was taken from."""
        index = self._session.state.selected
        if index is None or not np.isfinite(self._scene.poses[index]).all():
            self._session.say("This frame has no pose." if index is not None else "Choose a frame first.")
            return
        pose, size = self._scene.poses[index], self._capture_scene.size
        for page in [client] if client is not None else list(self._server.get_clients().values()):
            with page.atomic():
                page.camera.wxyz = wxyz_from_matrix((pose[:3, :3] @ np.diag([1.0, -1.0, -1.0]))[None])[0]
                # A little behind the camera, so that its picture is before the eye.
                page.camera.position = pose[:3, 3] + size * pose[:3, 2]

    def point_out(self, how: Literal["place", "box"] | None) -> None:
        """Let the next click or rectangle in the scene mark frames; None: mark none."""
        self._scene.point_out(how, self._session.mark)
        self._session.mark(())
        said = {"place": "Click a point of the scene: who sees it?", "box": "Drag a rectangle over cameras."}
        if how is not None:
            self._session.say(said[how])

    def stop(self) -> None:
        """Draw no more."""
        self._unsubscribe()
        self._stopped.set()
        self._due.set()
        for thread in self._threads:
            thread.join(timeout=2.0 * _FILE_SECONDS)

    def _opened(self, client: Any) -> None:
        self._pages[client.client_id] = page = NearbyThumbnails(
            client, self._scene, self._capture_scene, self._thumbnails
        )
        client.camera.on_update(lambda _: self.redraw() if page.is_due() else None)
        self.redraw()

    def _draw(self) -> None:
        while not self._stopped.is_set():
            self._due.wait()
            self._due.clear()
            if self._stopped.is_set():
                return
            try:
                self._draw_once()
            except Exception:  # whatever it was, the next change is to be drawn again
                _LOG.exception("the viewer could not draw")

    def _draw_once(self) -> None:
        state, look = self._session.state, self._panel.look
        self._scene.draw(state, look)
        self._panel.draw(state)
        for page in list(self._pages.values()):
            page.draw(state, look)

    def _watch(self) -> None:
        """Look at the file now and then, and choose pictures anew for cameras that came to rest."""
        while not self._stopped.wait(_FILE_SECONDS):
            self._session.look_again()
            self.redraw()
