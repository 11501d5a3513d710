"""From a filter's result to what people look at: diversity before and after, and the report."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtcm_nerfstudio.decision_files import FilterResult
from mtcm_nerfstudio.decisions import FILE_NAME as DECISIONS
from mtcm_nerfstudio.decisions import write_text_atomically
from mtcm_nerfstudio.report.page import FILE_NAME, ReportContents, anchor, report_page
from mtcm_nerfstudio.report.svg_charts import Scatter
from mtcm_nerfstudio.views.decision_poses import has_plausible_pose, suggested_poses, used_poses
from mtcm_nerfstudio.views.diversity import Diversity, diversity, table
from mtcm_nerfstudio.views.labels.look_at import top_view
from mtcm_nerfstudio.views.labels.pose_labels import view_angles
from mtcm_nerfstudio.views.write import EMBEDDINGS, KEPT, KEPT_POSES, SUGGESTED, SUGGESTED_TABLE, TABLE


def diversity_of(result: FilterResult) -> dict[str, Diversity]:
    """Measure the views of all frames, of the kept ones, and of these with the suggested ones."""
    decisions = result.decisions
    kept = np.array([frame.kept for frame in decisions.frames], dtype=bool)
    return diversity(
        used_poses(result.capture, decisions),
        kept,
        suggested_poses(decisions),
        has_plausible_pose(decisions),
    )


def diversity_lines(found: Mapping[str, Diversity]) -> list[str]:
    """Return the table of diversity for a terminal."""
    rows = table(dict(found))
    if len(rows[0]) < 2:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def write_report(result: FilterResult, found: Mapping[str, Diversity]) -> Path:
    """Write ``report.html`` beside the decisions and return its path."""
    names = (DECISIONS, KEPT, TABLE, SUGGESTED_TABLE, EMBEDDINGS, KEPT_POSES, SUGGESTED)
    contents = ReportContents(
        capture=result.capture.name,
        decisions=result.decisions,
        images={frame.file_path: frame.image_path for frame in result.capture.frames},
        notes=(*result.capture.notes, *result.warnings),
        views=_scatters(result),
        table=table(dict(found)),
        files=tuple(name for name in names if (result.output_dir / name).is_file()),
    )
    path = result.output_dir / FILE_NAME
    write_text_atomically(path, report_page(contents))
    return path


def _scatters(result: FilterResult) -> tuple[Scatter, ...]:
    frames, suggested = result.decisions.frames, result.decisions.suggested
    c2w = np.concatenate([used_poses(result.capture, result.decisions), suggested_poses(result.decisions)])
    real = np.isfinite(c2w).all(axis=(1, 2))
    real[: len(frames)] &= has_plausible_pose(result.decisions)
    real[len(frames) :] = False
    if not real.any():
        return ()
    names = (*(frame.file_path for frame in frames), *(f"suggested: {view.label}" for view in suggested))
    verdicts = (*(frame.verdict for frame in frames), *("suggested" for _ in suggested))
    links = (*(anchor(frame.file_path) for frame in frames), *(None for _ in suggested))
    names_of_frames = [frame.file_path for frame in frames]
    front = names_of_frames.index(result.decisions.front) if result.decisions.front in names_of_frames else None
    if front is not None and not np.isfinite(c2w[front]).all():
        front = None
    angles, above = view_angles(c2w, front, real), top_view(c2w, real, front)
    unit = max(float(np.median(np.linalg.norm(above[real], axis=1))), 1e-9)
    about = angles.elevation is not None
    sphere = Scatter(
        "View sphere about the subject" if about else "Directions of view",
        "azimuth, degrees (0: front, positive: right)" if about else "azimuth, degrees (0: along the path)",
        "elevation, degrees" if about else "pitch, degrees",
        angles.azimuth,
        angles.pitch if angles.elevation is None else angles.elevation,
        verdicts,
        names,
        links,
    )
    plan = Scatter(
        "Cameras from above",
        "to the right, in median distances",
        "ahead",
        above[:, 0] / unit,
        above[:, 1] / unit,
        verdicts,
        names,
        links,
        equal=True,
    )
    return sphere, plan
