"""``ns-mtcm-view``'s two servers: the scene on viser, and beside it the page with the table, which shows both."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.decision_files import FilterResult, write_exports
from mtcm_nerfstudio.viewer.capture_scene import CaptureScene, build_scene
from mtcm_nerfstudio.viewer.capture_viewer import CaptureViewer
from mtcm_nerfstudio.viewer.session import Session
from mtcm_nerfstudio.viewer.table.server import TableServer
from mtcm_nerfstudio.viewer.thumbnail_cache import ThumbnailCache

_EYE = np.array([0.9, 1.2, 1.8])
"""Where a page stands at first, as a multiple of how far out the cameras are."""


@dataclass(frozen=True, eq=False)
class Served:
    """A capture that can be looked at."""

    session: Session
    page: str
    """Address of the page with scene and table."""
    scene: str
    """Address of the scene alone."""


@contextmanager
def serve_viewer(result: FilterResult, host: str = "127.0.0.1", port: int = 7020) -> Iterator[Served]:
    """Show a capture while this lasts.

    Args:
        result: its decisions, which are in their file.
        host: address to listen on.
        port: for the page; where it is taken, the next that is free. The scene has another one.

    Raises:
        OSError: the address cannot be listened on.
    """
    import viser  # takes a second

    session = Session(
        result.output_dir / decisions_file.FILE_NAME,
        lambda decisions: write_exports(decisions, result.capture, result.output_dir),
    )
    capture_scene = build_scene(result.capture)
    thumbnails = ThumbnailCache(capture_scene.images)
    table = TableServer(session, thumbnails, host, port, result.capture.name)
    with redirect_stdout(StringIO()):  # it would announce itself in a box of its own
        server: Any = viser.ViserServer(host=host, port=table.port + 1, verbose=False)
    try:
        server.gui.configure_theme(
            control_layout="collapsible", control_width="small", dark_mode=True, brand_color=(86, 180, 233)
        )
        server.scene.set_up_direction("+y")
        server.scene.set_background_image(np.full((1, 1, 3), 24, dtype=np.uint8))
        eye = first_eye(capture_scene)
        server.on_client_connect(lambda client: _stand(client, eye))
        viewing = CaptureViewer(server, session, capture_scene, thumbnails)
        table.start(server.get_port(), viewing.fly_to_selected, viewing.point_out)
        try:
            yield Served(session, table.address, f"http://{table.shown_host}:{server.get_port()}")
        finally:
            viewing.stop()
    finally:
        table.stop()
        server.stop()


def first_eye(capture_scene: CaptureScene) -> Float[np.ndarray, "3"]:
    """Return where a page stands at first: outside of most cameras, and above them."""
    away = np.linalg.norm(capture_scene.claimed()[:, :3, 3], axis=1)
    return _EYE * (float(np.nanquantile(away, 0.9)) if np.isfinite(away).any() else 1.0)


def _stand(client: Any, eye: Float[np.ndarray, "3"]) -> None:
    with client.atomic():
        client.camera.position, client.camera.look_at = eye, np.zeros(3)
