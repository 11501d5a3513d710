"""ns-mtcm-process: photos or a video become a posed capture, through COLMAP (pycolmap: nothing to install).

Usage:
    ns-mtcm-process --data PHOTOS --output-dir CAPTURE            pose a folder of photos
    ns-mtcm-process --data walk.mp4 --output-dir CAPTURE --fps 2  pose two frames a second of a video
    ns-mtcm-process --data PHOTOS --output-dir CAPTURE --masks    mask the subject too (the masks extra)

The photos are only read. A run that was stopped goes on where it was.
"""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from mtcm_nerfstudio.capture.process.process_data import ProcessSettings, process
from mtcm_nerfstudio.capture.process.process_summary import summary
from mtcm_nerfstudio.capture.process.stage_bars import stage_bars
from mtcm_nerfstudio.cli.errors import clear_errors


@dataclass(frozen=True)
class ProcessCommand:
    """Turn photos or a video into a posed capture."""

    data: Path
    """A folder of photos, or a video file."""
    output_dir: Path
    """The capture to write: images/, sparse/0, transforms.json. A new folder, or one of an earlier run."""
    settings: tyro.conf.OmitArgPrefixes[ProcessSettings] = field(default_factory=ProcessSettings)
    """How to pose them."""

    def run(self) -> None:
        """Process with progress bars and print the summary."""
        with stage_bars() as report:
            processed = process(self.data, self.output_dir, self.settings, report)
        print("\n".join(summary(processed)))
        print(f"  capture: {self.output_dir}")


def entrypoint() -> None:
    """Run the command line."""
    with clear_errors():
        tyro.cli(ProcessCommand, description=__doc__).run()


if __name__ == "__main__":
    entrypoint()
