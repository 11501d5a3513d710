"""Attach the panel to nerfstudio's viewer.

nerfstudio finds a ``ViewerControl`` among the public attributes of a pipeline and hands it the viewer, in ``ns-train``
as in ``ns-viewer``. With a stock method there is no pipeline of ours, and so no panel.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.decision_files import write_exports
from mtcm_nerfstudio.nerf.dataparser.parser import MTCMDataParser
from mtcm_nerfstudio.viewer.capture_scene import PoseTransform, build_scene
from mtcm_nerfstudio.viewer.capture_viewer import CaptureViewer
from mtcm_nerfstudio.viewer.session import Session
from mtcm_nerfstudio.viewer.table.server import TableServer
from mtcm_nerfstudio.viewer.thumbnail_cache import ThumbnailCache

_HOST, _PORT = "127.0.0.1", 7020
_FOLDER = "MTCM"


class MTCMPanel(ViewerControl):
    """Shows the capture's frames in nerfstudio's viewer, and what training makes of them."""

    def __init__(self, parser: MTCMDataParser, live: Callable[[], Mapping[str, Tensor]]) -> None:
        """Wait for a viewer.

        Args:
            parser: of the capture.
            live: returns what training makes of its frames, by what it is, in the training set's order; empty where
                there is nothing to say.
        """
        self._parser, self._live = parser, live
        self._session: Session | None = None
        self._running: tuple[CaptureViewer, TableServer] | None = None

    def _setup(self, viewer: Any) -> None:
        """Build the panel; nerfstudio calls this with its viewer."""
        super()._setup(viewer)
        capture, server = self._parser.capture, self.viser_server
        try:
            self._session = self._opened(capture)
        except (OSError, ValueError) as error:
            CONSOLE.print(f"MTCM: no panel in the viewer: {error}", markup=False, highlight=False, soft_wrap=True)
            return
        # Points stay out: nerfstudio's scene is what the NeRF renders.
        capture_scene = build_scene(capture, to_nerfstudio_viewer(self._parser), points=False)
        thumbnails = ThumbnailCache(capture_scene.images)
        table = TableServer(self._session, thumbnails, _HOST, _PORT, capture.name)
        with server.gui.add_folder(_FOLDER):
            viewing = CaptureViewer(
                server, self._session, capture_scene, thumbnails, table.address, thumbnails_at_start=False
            )
        table.start(server.get_port(), viewing.fly_to_selected, viewing.point_out)
        self._running = viewing, table
        CONSOLE.print(f"MTCM: all frames in a table: {table.address}")
        self.refresh()

    def stop(self) -> None:
        """Draw no more and close the table; nerfstudio itself keeps its viewer until the process ends."""
        for one in self._running or ():
            one.stop()
        self._running = None

    def refresh(self) -> None:
        """Say what training makes of its frames now."""
        live = {} if self._session is None else self._live()
        if self._session is None or not live:
            return
        frames = self._session.state.decisions.frames
        row_of = {name: row for row, name in enumerate(self._parser.training_frames().names)}
        rows = np.array([row_of.get(frame.file_path, -1) for frame in frames])
        self._session.show_live({name: _spread(values, rows) for name, values in live.items()})

    def _opened(self, capture: Capture) -> Session:
        """Open the decisions that outlive the run; what a person says here goes there."""
        path, folder = self._parser.followed_decisions, self._parser.capture_output_dir
        if not path.is_file():
            decisions_file.write(self._parser.training_frames().decisions, path)
        own = path.parent == folder
        session = Session(path, (lambda decisions: write_exports(decisions, capture, folder)) if own else None)
        if [f.file_path for f in session.state.decisions.frames] != [f.file_path for f in capture.frames]:
            raise ValueError(f"{path} lists other frames than the capture has: run ns-mtcm-filter")
        return session


def to_nerfstudio_viewer(parser: MTCMDataParser) -> PoseTransform:
    """Return what takes the capture's poses into nerfstudio's viewer."""
    frames = parser.training_frames()

    def to_viewer(c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
        placed = frames.scene_from_capture(torch.from_numpy(c2w)).numpy().copy()
        placed[:, :3, 3] *= VISER_NERFSTUDIO_SCALE_RATIO
        return placed

    return to_viewer


def _spread(values: Float[Tensor, " trained"], rows: np.ndarray) -> Float[np.ndarray, " frame"]:
    """Return values of training frames for all frames; NaN where a frame is not trained on."""
    known = np.append(values.detach().double().cpu().numpy(), np.nan)
    return known[rows]
