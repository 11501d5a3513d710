"""ns-mtcm-filter: score every frame of a capture and say which to keep.

Usage:
    ns-mtcm-filter --data CAPTURE                      decisions and exports go to CAPTURE/mtcm/
    ns-mtcm-filter --data CAPTURE --dry-run            print the same, write nothing
    ns-mtcm-filter --data CAPTURE --output-dir OUT     write to OUT instead
    ns-mtcm-filter --data data --identity NAME         one identity of the identity layout
    ns-mtcm-filter --data CAPTURE --export-capture DIR a drop-in capture of the kept frames for any tool
    ns-mtcm-filter --data CAPTURE --max-frames 40      the 40 frames that serve the whole capture best
    ns-mtcm-filter --data CAPTURE --coverage 0.95      as few as serve it to 95 %
    ns-mtcm-filter --data CAPTURE --keep-labels front "three-quarter left" "three-quarter right"
    ns-mtcm-filter --data CAPTURE --suggest 20         poses of up to 20 views that are missing
    ns-mtcm-filter --data CAPTURE --reset              forget earlier decisions, a person's too
"""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from mtcm_nerfstudio.capture.writing.export import export_capture
from mtcm_nerfstudio.cli.errors import clear_errors
from mtcm_nerfstudio.decision_files import current_decisions, summary
from mtcm_nerfstudio.filter_report import diversity_lines, diversity_of, write_report
from mtcm_nerfstudio.filter_settings import FilterSettings


@dataclass(frozen=True)
class FilterCommand:
    """Score every frame of a capture, and write which to keep and why."""

    data: Path
    """The capture: a folder with a transforms.json, a COLMAP model, the identity layout, or bare photos."""
    output_dir: Path | None = None
    """Where the decisions go. Default: mtcm/ in the capture."""
    export_capture: Path | None = None
    """Also write a capture of the kept frames to this folder: transforms.json, COLMAP model, images."""
    report: bool = True
    """Write report.html beside the decisions: one page with every frame, why it went, and what is missing."""
    reset: bool = False
    """Forget the decisions that are there, a person's too."""
    dry_run: bool = False
    """Print what would be decided and write nothing."""
    filter: tyro.conf.OmitArgPrefixes[FilterSettings] = field(default_factory=FilterSettings)
    """How to filter."""

    def run(self) -> None:
        """Filter and print the summary."""
        result = current_decisions(self.data, self.filter, self.output_dir, self.reset, self.dry_run)
        found = diversity_of(result)
        print("\n".join([*summary(result), *diversity_lines(found)]))
        if self.dry_run:
            return
        print(f"  decisions: {result.output_dir / 'filtered_views.json'}")
        if self.report:
            print(f"  report: {write_report(result, found)}")
        if self.export_capture is not None:
            exported = export_capture(result.capture, result.decisions, self.export_capture)
            print(f"  capture of {exported.frames} kept frames: {self.export_capture}")
            print("".join(f"  note: {note}\n" for note in exported.notes), end="")


def entrypoint() -> None:
    """Run the command line."""
    with clear_errors():
        tyro.cli(FilterCommand, description=__doc__).run()


if __name__ == "__main__":
    entrypoint()
