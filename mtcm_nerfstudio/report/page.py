"""The page: counts, warnings, charts, the table of before and after, and a contact sheet sorted by inconsistency."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import numpy as np

from mtcm_nerfstudio.decisions import Decisions, FrameDecision
from mtcm_nerfstudio.report.svg_charts import Scatter, histogram_svg, scatter_svg
from mtcm_nerfstudio.report.thumbnails import thumbnails
from mtcm_nerfstudio.report.verdict_style import SIGNS, style_variables

FILE_NAME = "report.html"

_MOST_PICTURES = 1000
"""Frames with a picture; of more, those with the highest inconsistency."""
_EVIDENCE = {
    "blur_px": "edge width, pixels",
    "relative_sharpness": "sharpness, of the sharpest views",
    "exposure_stops": "exposure, stops above the usual",
    "matches_that_obey_pose": "matches that obey the pose",
    "most_verified_matches": "most verified matches",
    "turn_that_would_help_degrees": "turn that would help, degrees",
    "trust_of_pose": "support in the pair graph",
    "share_not_seen_as_by_partners": "share of the picture that is hidden or changed",
}


@dataclass(frozen=True, eq=False)
class ReportContents:
    """What a report shows."""

    capture: str
    decisions: Decisions
    images: Mapping[str, Path]
    """Where each frame's image lies, by ``file_path``."""
    notes: tuple[str, ...]
    """What a person should know, one sentence each."""
    views: tuple[Scatter, ...]
    table: Sequence[Sequence[str]]
    """Diversity before and after, with a heading."""
    files: tuple[str, ...]
    """Names of files beside the page."""


def report_page(contents: ReportContents) -> str:
    """Return the page: one HTML file that needs no other file and no network."""
    decisions = contents.decisions
    style, script = (
        files("mtcm_nerfstudio.report").joinpath(name).read_text("utf-8") for name in ("report.css", "report.js")
    )
    body = [
        _head(contents),
        _notes(contents.notes),
        '<section class="charts">',
        _figure(
            "Inconsistency of all frames",
            histogram_svg(np.array([frame.inconsistency for frame in decisions.frames]), decisions.threshold),
            "",
        ),
        *(_figure(view.title, scatter_svg(view), _LEGEND) for view in contents.views),
        "</section>",
        _diversity(contents.table),
        _suggestions(contents),
        _sheet(contents),
        _links(contents.files),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>MTCM: {escape(contents.capture)}</title><style>{style_variables()}{style}</style></head><body><main>"
        + "\n".join(part for part in body if part)
        + f"</main><script>{script}</script></body></html>\n"
    )


def anchor(file_path: str) -> str:
    """Return the id, in the page, of a frame's card."""
    return "frame-" + quote(file_path, safe="")


_LEGEND = (
    '<p class="legend">'
    + " ".join(f'<span class="{name}">{sign} {name}</span>' for name, sign in SIGNS.items())
    + "</p>"
)


def _head(contents: ReportContents) -> str:
    decisions = contents.decisions
    reasons = Counter(frame.reason for frame in decisions.dropped).most_common()
    facts = [
        ("kept", len(decisions.kept), f"of {len(decisions.frames)}"),
        ("dropped", len(decisions.dropped), ", ".join(f"{count} {reason}" for reason, count in reasons)),
        ("repaired", len(decisions.repaired), "at another pose" if decisions.repaired else ""),
        ("suggested", len(decisions.suggested), "missing views" if decisions.suggested else ""),
    ]
    tiles = "".join(
        f'<div class="tile {name}"><b>{count}</b><span>{name}</span><small>{escape(more)}</small></div>'
        for name, count, more in facts
    )
    return (
        f"<header><h1>{escape(contents.capture)}</h1><p>What MTCM made of this capture. Checkpoint "
        f"{escape(decisions.checkpoint)}, frames at or above {decisions.threshold:.2f} are inconsistent.</p></header>"
        f'<section class="tiles">{tiles}</section>'
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return '<section class="notes">' + "".join(f"<p>{escape(note)}</p>" for note in notes) + "</section>"


def _figure(title: str, svg: str, legend: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}{legend}</figure>" if svg else ""


def _diversity(table: Sequence[Sequence[str]]) -> str:
    if len(table) < 2:
        return ""
    head, *rows = table
    heading = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        '<section><h2>Diversity of the views</h2><div class="wide"><table class="numbers">'
        f"<thead><tr>{heading}</tr></thead><tbody>{lines}</tbody></table></div></section>"
    )


def _suggestions(contents: ReportContents) -> str:
    suggested = contents.decisions.suggested
    if not suggested:
        return ""
    lines = "".join(
        f"<tr><td>{i + 1}</td><td>{escape(view.label or '')}</td><td>{view.gain:.1%}</td><td>"
        + ", ".join(f'<a href="#{anchor(name)}">{escape(name)}</a>' for name in view.seen_best_by)
        + "</td></tr>"
        for i, view in enumerate(suggested)
    )
    return (
        "<section><h2>Views that are missing</h2><p>Gain is the share of what the kept frames leave uncovered that a "
        'frame there would cover.</p><div class="wide"><table><thead><tr><th></th><th>where</th><th>gain</th>'
        f"<th>nearest frames</th></tr></thead><tbody>{lines}</tbody></table></div></section>"
    )


def _sheet(contents: ReportContents) -> str:
    frames = sorted(contents.decisions.frames, key=lambda frame: -frame.inconsistency)
    shown = frames[:_MOST_PICTURES]
    data_uris = thumbnails([contents.images[frame.file_path] for frame in shown])
    of_name = {frame.file_path: data_uri for frame, data_uri in zip(shown, data_uris, strict=True)}
    reasons = sorted({frame.reason for frame in frames if frame.reason})
    options = "".join(f'<option value="{escape(reason)}">{escape(reason)}</option>' for reason in reasons)
    cut = f"<p>The {_MOST_PICTURES} with the highest inconsistency; all are in filtered_views.csv.</p>"
    return (
        '<section id="frames"><h2>Frames, the most inconsistent first</h2>'
        + (cut if len(frames) > len(shown) else "")
        + '<form class="controls"><input type="search" id="search" placeholder="search by name or label" '
        'aria-label="search by name or label"><select id="verdict" aria-label="verdict"><option value="">all verdicts'
        "</option><option>kept</option><option>repaired</option><option>dropped</option></select>"
        f'<select id="reason" aria-label="reason"><option value="">all reasons</option>{options}</select>'
        '<output id="count"></output></form><div class="sheet">'
        + "".join(_card(frame, data_uri, of_name) for frame, data_uri in zip(shown, data_uris, strict=True))
        + "</div></section>"
    )


def _card(frame: FrameDecision, data_uri: str | None, of_name: Mapping[str, str | None]) -> str:
    verdict = frame.verdict
    name = escape(frame.file_path)
    image = f'<img src="{data_uri}" alt="{name}" loading="lazy">' if data_uri else '<div class="absent">no image</div>'
    said = f"{verdict}: {frame.reason}" if frame.reason else verdict
    by = "" if frame.decided_by == "model" else f" (by {frame.decided_by})"
    modality = [("image", frame.modality.image), ("pose", frame.modality.pose), ("time", frame.modality.time)]
    bars = "".join(
        f'<span>{part}</span><meter min="0" max="1" value="{score:.3f}" title="{part} {score:.2f}"></meter>'
        for part, score in modality
        if score is not None
    )
    numbers = "".join(
        f"<dt>{escape(_EVIDENCE[key])}</dt><dd>{frame.evidence[key]:.3g}</dd>"
        for key in _EVIDENCE
        if key in frame.evidence
    )
    text = escape(f"{frame.file_path} {frame.label or ''} {frame.words or ''}".lower())
    label = "".join(f" · {escape(word)}" for word in (frame.label, frame.words) if word)
    more = f"<details><summary>evidence</summary><dl>{numbers}</dl></details>" if numbers else ""
    return (
        f'<article id="{anchor(frame.file_path)}" class="card {verdict}" data-verdict="{verdict}" '
        f'data-reason="{escape(frame.reason or "")}" data-text="{text}">'
        f'{image}<div class="words"><b title="{name}">{name}</b><span class="badge">{SIGNS[verdict]} '
        f"{escape(said)}{escape(by)}</span><small>inconsistency {frame.inconsistency:.2f}"
        f'{label}</small><div class="parts">{bars}</div>{_odd(frame, of_name)}{more}</div></article>'
    )


def _odd(frame: FrameDecision, of_name: Mapping[str, str | None]) -> str:
    other = frame.most_at_odds_with
    if other is None or (frame.kept and frame.repaired_transform_matrix is None):
        return ""
    data_uri = of_name.get(other)
    shown = f'<img src="{data_uri}" alt="" loading="lazy">' if data_uri else ""
    return f'<a class="odd" href="#{anchor(other)}">{shown}<small>most at odds with<br>{escape(other)}</small></a>'


def _links(names: Sequence[str]) -> str:
    if not names:
        return ""
    listed = "".join(f'<li><a href="{quote(name)}">{escape(name)}</a></li>' for name in names)
    return f"<footer><h2>Files</h2><ul>{listed}</ul></footer>"
