"""From a filter's result to what people look at: diversity before and after, and the report."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.analysis.report.charts import Scatter
from mtcm_nerfstudio.analysis.report.page import FILE_NAME, ReportContents, anchor, report_page, verdict_of
from mtcm_nerfstudio.decisions import FILE_NAME as DECISIONS
from mtcm_nerfstudio.decisions import write_text_atomically
from mtcm_nerfstudio.filtering import FilterResult
from mtcm_nerfstudio.views.diversity import Diversity, diversity, table
from mtcm_nerfstudio.views.labels import view_angles
from mtcm_nerfstudio.views.look_at import seen_from_above
from mtcm_nerfstudio.views.summary import POSE_NOT_BELIEVED
from mtcm_nerfstudio.views.write import EMBEDDINGS, KEPT, KEPT_POSES, SUGGESTED, SUGGESTED_TABLE, TABLE


def diversity_of(result: FilterResult) -> dict[str, Diversity]:
    """Measure the views of all frames, of the kept ones, and of these with the suggested ones."""
    frames = result.decisions.frames
    kept = np.array([frame.kept for frame in frames], dtype=bool)
    return diversity(_poses(result), kept, _suggested(result), _believed(result))


def diversity_lines(found: Mapping[str, Diversity]) -> list[str]:
    """Return the table of diversity for a terminal."""
    rows = table(dict(found))
    if len(rows[0]) < 2:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + row[0].ljust(widths[0]) + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))  # noqa: B905
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
    c2w = np.concatenate([_poses(result), _suggested(result)])
    real = np.isfinite(c2w).all(axis=(1, 2))
    real[: len(frames)] &= _believed(result)
    real[len(frames) :] = False
    if not real.any():
        return ()
    names = (*(frame.file_path for frame in frames), *(f"suggested: {view.label}" for view in suggested))
    verdicts = (*(verdict_of(frame) for frame in frames), *("suggested" for _ in suggested))
    links = (*(anchor(frame.file_path) for frame in frames), *(None for _ in suggested))
    angles, above = view_angles(c2w, real=real), seen_from_above(c2w, real)
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


def _poses(result: FilterResult) -> Float[np.ndarray, "n 4 4"]:
    """Return the poses that training uses: repaired where they were."""
    poses = []
    for frame, decision in zip(result.capture.frames, result.decisions.frames, strict=True):
        pose = frame.c2w if decision.repaired_transform_matrix is None else decision.repaired_transform_matrix
        poses.append(np.full((4, 4), np.nan) if pose is None else np.array(pose, dtype=np.float64))
    return np.stack(poses).astype(np.float64) if poses else np.zeros((0, 4, 4))


def _suggested(result: FilterResult) -> Float[np.ndarray, "m 4 4"]:
    return np.array([view.transform_matrix for view in result.decisions.suggested], dtype=np.float64).reshape(-1, 4, 4)


def _believed(result: FilterResult) -> Bool[np.ndarray, " n"]:
    believed = (frame.kept or frame.reason not in POSE_NOT_BELIEVED for frame in result.decisions.frames)
    return np.array(list(believed), dtype=bool)
