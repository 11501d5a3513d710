"""Tables for people, in Markdown: rows of strings, the first of which is the header."""

from collections.abc import Mapping, Sequence

from benchmarks.corruptions import Kind
from benchmarks.detection.figures import COSTS, Figures, auroc_by_capture
from benchmarks.detection.prediction import Outcome
from benchmarks.detection.repairs import RepairFigures

Rows = list[list[str]]
Results = Mapping[tuple[str, str], Figures]
"""Figures by method and kind of trial."""

_ABSENT = "–"


def ranking_rows(results: Results, methods: Sequence[str], kind: str) -> Rows:
    """Return a row a method: how well it ranks frames, and what it finds at equal costs, on one kind of trial."""
    rows = [["method", "AUROC", "worst capture", *(f"recall at {100.0 * cost:g} %" for cost in COSTS), "seconds"]]
    for found in (results[method, kind] for method in methods if (method, kind) in results):
        worst = f"{_number(found.worst_capture_auroc)} ({found.worst_capture})" if found.worst_capture else _ABSENT
        recalls = (_percent(found.recall_at.get(str(cost))) for cost in COSTS)
        rows.append([found.method, _number(found.auroc), worst, *recalls, f"{found.seconds:.2f}"])
    return rows


def kind_rows(results: Results, methods: Sequence[str], kind: str, corruptions: Sequence[Kind]) -> Rows:
    """Return a row a method: AUROC of each kind of corruption in one kind of trial."""
    predictions = [results[method, kind] for method in methods if (method, kind) in results]
    return [
        ["method", *map(in_words, corruptions)],
        *([found.method, *(_number(found.auroc_by_kind.get(name)) for name in corruptions)] for found in predictions),
    ]


def alone_rows(results: Results, methods: Sequence[str], kinds: Sequence[str]) -> Rows:
    """Return a row a method: AUROC on the trials of several kinds."""
    predictions = [method for method in methods if any((method, kind) in results for kind in kinds)]
    return [
        ["method", *map(in_words, kinds)],
        *([method, *(_auroc(results.get((method, kind))) for kind in kinds)] for method in predictions),
    ]


def capture_rows(
    outcomes: Sequence[Outcome], groups: Mapping[str, str], shown: Sequence[str], singles: Sequence[str], kind: str
) -> Rows:
    """Return a row a capture: AUROC of some methods, and of the single baseline that is best there.

    Args:
        outcomes: of all trials.
        groups: of the captures, by name.
        shown: methods with a column of their own.
        singles: methods of which only the best is shown.
        kind: of the trials that count.
    """
    by_method = {method: auroc_by_capture(method, kind, outcomes) for method in (*shown, *singles)}
    shown = [method for method in shown if by_method[method]]
    rows = [["capture", "group", *shown, "best single baseline"]]
    for capture in dict.fromkeys(outcome.case.capture for outcome in outcomes):
        values = {method: found[capture] for method, found in by_method.items() if capture in found}
        best = max((method for method in singles if method in values), key=lambda one: values[one], default=None)
        named = _ABSENT if best is None else f"{_number(values[best])} ({best})"
        rows.append([capture, groups[capture], *(_number(values.get(method)) for method in shown), named])
    return rows


def threshold_rows(results: Results, methods: Sequence[str], kinds: Sequence[str]) -> Rows:
    """Return a row for each method with a threshold and each kind: what it finds and why, and what it drops beside."""
    rows = [["method", "frames", "recall", "good dropped", "good moved", "reason right", "calibration error"]]
    for method in methods:
        for kind in kinds:
            found = results.get((method, kind))
            if found is None or found.good_dropped is None or found.good_touched is None:
                continue
            shares = (found.recall, found.good_dropped, found.good_touched - found.good_dropped, found.reason_accuracy)
            rows.append([method, in_words(kind), *map(_percent, shares), _number(found.calibration_error)])
    return rows


def repair_table(found: Sequence[RepairFigures]) -> Rows:
    """Return a row a kind of wrong pose: how many were put right, how well, and what else was moved."""
    header = "poses | wrong | repaired | turned, before → after | shifted, before → after | largest turn left"
    rows = [[*header.split(" | "), "good moved", "corrupted images moved"]]
    for one in found:
        turned = f"{_degrees(one.degrees_before)} → {_degrees(one.degrees_after)}"
        shifted = f"{_percent(one.shift_before)} → {_percent(one.shift_after, 2)}"
        known = one.degrees_after is not None
        rows.append(
            [
                in_words(one.name),
                str(one.wrong_poses),
                _percent(one.repaired),
                turned if known else _ABSENT,
                shifted if known else _ABSENT,
                _degrees(one.largest_degrees_after),
                _percent(one.good_moved),
                _percent(one.corrupted_images_moved),
            ]
        )
    return rows


def markdown(title: str, explanation: str, rows: Rows) -> str:
    """Lay rows out as a Markdown table under a heading and what is to be known about it."""
    lines = [" | ".join(row) for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
    return f"## {title}\n\n{explanation}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


def in_words(kind: str) -> str:
    """Return the name of a kind of corruption or trial for a reader."""
    name, _, size = kind.partition("_")
    return f"{name} {size}°" if size.isdigit() else kind.replace("_", " ")


def _auroc(found: Figures | None) -> str:
    return _ABSENT if found is None else _number(found.auroc)


def _number(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.3f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return _ABSENT if value is None else f"{100.0 * value:.{digits}f} %"


def _degrees(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.2f}°"
