"""ns-mtcm-view: look at a capture in a browser: kept, dropped, repaired and suggested frames. Overrule what is wrong.

Usage:
    ns-mtcm-view --data CAPTURE                        print an address to open; Ctrl-C stops
    ns-mtcm-view --data CAPTURE --open                 open it in the browser
    ns-mtcm-view --data data --identity NAME           one identity of the identity layout
    ns-mtcm-view --data CAPTURE --host 0.0.0.0         let other machines open it (who can, can decide)

Where the capture has no decisions, it is filtered first. What you decide is written to filtered_views.json at
once, in your name: no later run of the filter takes it back, and ns-train goes by it.
"""

import signal
import threading
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decision_files import current_decisions, existing_decisions, summary
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.viewer.serve import serve_viewer


@dataclass(frozen=True)
class ViewCommand:
    """Look at a capture's frames and overrule what was decided about them."""

    data: Path
    """The capture: a folder with a transforms.json, a COLMAP model, the identity layout, or bare photos."""
    output_dir: Path | None = None
    """Where the decisions are. Default: mtcm/ in the capture."""
    host: str = "127.0.0.1"
    """Address to listen on. 127.0.0.1: this machine alone; 0.0.0.0: every machine that reaches it."""
    port: int = 7020
    """Port of the page; where it is taken, the next that is free."""
    open: bool = False
    """Open the page in a browser."""
    filter: tyro.conf.OmitArgPrefixes[FilterSettings] = field(default_factory=FilterSettings)
    """How to filter: with any of these the capture's decisions are brought in step with them first. Without, those that
    are there are shown as they are."""

    def run(self) -> None:
        """Serve until Ctrl-C."""
        which = FilterSettings(source=self.filter.source, identity=self.filter.identity)
        # Without flags that say how to filter, what is there is looked at, and not decided anew.
        found = existing_decisions(self.data, which, self.output_dir) if self.filter == which else None
        result = found or current_decisions(self.data, self.filter, self.output_dir)
        print("\n".join([summary(result)[0], *(f"  warning: {line}" for line in result.warnings)]))
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        with serve_viewer(result, self.host, self.port) as pages:
            print(f"  page: {pages.page}\n  the scene alone: {pages.scene}\n  Ctrl-C stops.", flush=True)
            if self.open:
                webbrowser.open(pages.page)
            while not stopped.wait(1.0):
                pass
        print("stopped")


def entrypoint() -> None:
    """Run the command line."""
    with clear_errors():
        tyro.cli(ViewCommand, description=__doc__).run()


if __name__ == "__main__":
    entrypoint()
