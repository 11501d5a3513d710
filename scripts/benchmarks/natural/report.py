"""Tables, record and contact sheets of captures as they came."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

from benchmarks.detection import tables
from benchmarks.natural.filtered_capture import SHARP_FRAMES_PERCENT, FilteredCapture, FilteredFrame
from mtcm_nerfstudio.capture.images import thumbnail

LOST = (0.005, 0.01, 0.02)
"""Shares of the good frames at which methods are compared."""
_SIDE, _COLUMNS, _BORDER = 150, 10, 5
_COLOURS = {"kept": "#3a7d44", "lost": "#d62728", "found": "#1f77b4", "missed": "#ff9f1c", "mild": "#9e9e9e"}


def line(one: FilteredCapture) -> str:
    """Return one line about a capture."""
    clear, mild = one.found("clear"), one.found("mild")
    return (
        f"{one.name}: {one.good_lost()} of {one.good()} good frames lost, clear faults {clear[0]} of {clear[1]}, "
        f"mild {mild[0]} of {mild[1]}, unseen {one.unseen}"
    )


def markdown(about: Mapping[str, Any], found: Sequence[FilteredCapture]) -> str:
    """Return the whole report."""
    text = [
        "# Captures as they came\n",
        f"Made by `{about['command']}`.\n",
        "Every capture is judged by a checkpoint that never saw it. Good frames lost: dropped, or given another pose. "
        "Unseen: good frames dropped without a kept one anywhere near. Labels: data/captures.json. Of photos that "
        "ns-mtcm-process posed in part, the photos count; those with poses, where frames without one are left out, "
        "stand below the sum.\n",
    ]
    return "\n".join(
        [
            *text,
            tables.markdown("By capture", "Decisions of the filter with its default settings.", capture_rows(found)),
            tables.markdown(
                "At equal costs",
                "Share of the clear natural faults that each method ranks above all but 0.5, 1 and 2 % of the good "
                "frames of all captures together; AUROC of clear faults against good frames.",
                method_rows(found),
            ),
        ]
    )


def capture_rows(found: Sequence[FilteredCapture]) -> tables.Rows:
    """Return a row a capture, and one for all."""
    rows = [["capture", "group", "good", "lost", "share", "clear found", "mild found", "kept for coverage", "unseen"]]
    once = [one for one in found if not one.again]
    rows += [_row(one.name, one.group, [one]) for one in once]
    rows.append(_row("all", "", once))
    return rows + [_row(one.name, one.group, [one]) for one in found if one.again]


def _row(name: str, group: str, found: Sequence[FilteredCapture]) -> list[str]:
    good, lost = sum(one.good() for one in found), sum(one.good_lost() for one in found)
    shares = []
    for grade in ("clear", "mild"):
        counts = np.array([one.found(grade) for one in found]).sum(axis=0)
        shares.append(f"{counts[0]} of {counts[1]}" if counts[1] else "–")
    limited = sum(frame.kept_by_limit for one in found for frame in one.frames)
    unseen = sum(one.unseen for one in found)
    return [
        name,
        group,
        str(good),
        str(lost),
        f"{100.0 * lost / max(good, 1):.1f} %",
        *shares,
        str(limited),
        str(unseen),
    ]


def method_rows(found: Sequence[FilteredCapture]) -> tables.Rows:
    """Return a row a method: what it finds at equal shares of good frames lost."""
    frames = [frame for one in found if not one.again for frame in one.frames if frame.natural != "mild"]
    faulty = np.array([frame.natural == "clear" for frame in frames])
    rows = [["method", "AUROC", *(f"found at {100 * share:g} %" for share in LOST)]]
    for name in frames[0].scores if frames and faulty.any() else ():
        score = np.array([frame.scores[name] for frame in frames])
        cells = [recall_at(score, faulty, share) for share in LOST]
        rows.append([name, f"{roc_auc_score(faulty, score):.3f}", *(f"{100.0 * cell:.0f} %" for cell in cells)])
    return rows


def recall_at(score: np.ndarray, faulty: np.ndarray, lost: float) -> float:
    """Return the share of the faulty that score above all but a share ``lost`` of the good."""
    return float((score[faulty] > np.quantile(score[~faulty], 1.0 - lost, method="higher")).mean())


def record(about: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> str:
    """Return the JSON of a run: every frame's decision and scores, one frame a line."""
    captures = []
    for one in found:
        frames = [json.dumps(_short(frame), separators=(",", ":")) for frame in one["frames"]]
        head = json.dumps({key: one[key] for key in ("name", "group", "checkpoint", "unseen", "again")})
        captures.append(f'{head[:-1]}, "frames": [\n' + ",\n".join(frames) + "\n]}")
    head = json.dumps({"schema_version": 1, "sharp_frames_percent": SHARP_FRAMES_PERCENT, **about}, indent=1)
    return f'{head[:-2]},\n "captures": [\n' + ",\n".join(captures) + "\n]}\n"


def _short(frame: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is as usual, and round."""
    short = {key: value for key, value in frame.items() if value not in (None, False) and key != "scores"}
    return {**short, "kept": frame["kept"], "scores": {k: round(v, 4) for k, v in frame["scores"].items()}}


def contact_sheet(one: FilteredCapture, path: Path) -> None:
    """Write a picture of all frames in temporal order, framed by what became of them."""
    pictures = [thumbnail(path, _SIDE - 2 * _BORDER) for path in one.images]
    height = max((picture.height for picture in pictures if picture is not None), default=_SIDE) + 2 * _BORDER + 16
    rows = -(-len(one.frames) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (_SIDE + 6), max(rows, 1) * (height + 6)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (frame, picture) in enumerate(zip(one.frames, pictures, strict=True)):
        x, y = (place % _COLUMNS) * (_SIDE + 6), (place // _COLUMNS) * (height + 6)
        outcome = _outcome(frame)
        draw.rectangle((x, y, x + _SIDE, y + height), fill=_COLOURS[outcome])
        if picture is not None:
            sheet.paste(picture, (x + _BORDER, y + _BORDER))
        text = f"{Path(frame.file_path).stem[-12:]} {frame.scores['MTCM']:.2f} {(frame.reason or '')[:9]}"
        draw.text((x + 2, y + height - 15), text, fill="white")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=85)


def _outcome(frame: FilteredFrame) -> str:
    if frame.natural == "mild":
        return "mild"
    if frame.natural == "clear":
        return "missed" if frame.kept else "found"
    return "kept" if frame.kept and not frame.moved else "lost"
