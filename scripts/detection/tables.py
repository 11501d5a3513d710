"""Tables for people, in Markdown: rows of strings, the first of which is the header."""

from collections.abc import Mapping, Sequence

from detection.figures import Figures, auroc_by_capture
from detection.judgement import Outcome
from detection.methods import GLUED, LOGISTIC
from detection.repairs import RepairFigures
from detection.trials import CLEAN

Rows = list[list[str]]

_ABSENT = "–"


def summary_rows(results: Mapping[tuple[str, str], Figures], methods: Sequence[str], kind: str) -> Rows:
    """Return a row a method: its figures on trials of one kind, and what it takes from a capture as it came."""
    header = "method | AUROC | AP | recall | good dropped | clean dropped or moved | reason right | calibration error"
    rows = [[*header.split(" | "), "worst capture's AUROC", "seconds"]]
    for method in methods:
        found = results.get((method, kind))
        if found is not None:
            clean = results.get((method, CLEAN))
            touched = None if clean is None else clean.good_touched
            shares = (found.recall, found.good_dropped, touched, found.reason_accuracy)
            rows.append(
                [
                    method,
                    _number(found.auroc),
                    _number(found.average_precision),
                    *map(_percent, shares),
                    _number(found.calibration_error),
                    _number(found.worst_capture_auroc),
                    f"{found.seconds:.2f}",
                ]
            )
    return rows


def kind_rows(results: Mapping[tuple[str, str], Figures], methods: Sequence[str], kinds: Sequence[str]) -> Rows:
    """Return a row a kind of trial: every method's AUROC."""
    found = [kind for kind in kinds if any((method, kind) in results for method in methods) and kind != CLEAN]
    return [
        ["faults", *methods],
        *([kind, *(_auroc(results.get((method, kind))) for method in methods)] for kind in found),
    ]


def capture_rows(outcomes: Sequence[Outcome], mtcm: Sequence[str], singles: Sequence[str], kind: str) -> Rows:
    """Return a row a capture: AUROC of MTCM, of the single baseline that is best there, and of those put together."""
    glued = [name for name in (GLUED, LOGISTIC) if any(name in outcome.said for outcome in outcomes)]
    by_method = {method: auroc_by_capture(method, kind, outcomes) for method in (*mtcm, *singles, *glued)}
    rows = [["capture", *mtcm, "best single baseline", *glued]]
    for capture in dict.fromkeys(outcome.case.capture for outcome in outcomes):
        values = {method: found[capture] for method, found in by_method.items() if capture in found}
        known = [method for method in singles if method in values]
        best = max(known, key=lambda method: values[method], default=None)
        named = _ABSENT if best is None else f"{_number(values[best])} ({best})"
        own, put_together = ([_number(values.get(method)) for method in names] for names in (mtcm, glued))
        rows.append([capture, *own, named, *put_together])
    return rows


def threshold_rows(results: Mapping[tuple[str, str], Figures], methods: Sequence[str], kinds: Sequence[str]) -> Rows:
    """Return a row for each method with a threshold and each kind: what it finds and why, and what it drops beside."""
    rows = [["method", "faults", "recall", "good dropped", "good moved", "reason right", "calibration error"]]
    for method in methods:
        for kind in kinds:
            found = results.get((method, kind))
            if found is None or found.good_dropped is None or found.good_touched is None:
                continue
            shares = (found.recall, found.good_dropped, found.good_touched - found.good_dropped, found.reason_accuracy)
            rows.append([method, kind, *map(_percent, shares), _number(found.calibration_error)])
    return rows


def repair_table(found: Sequence[RepairFigures]) -> Rows:
    """Return a row a kind of trial: how many poses were put right, how well, and what else was moved."""
    rows = [
        [
            "faults",
            "wrong poses",
            "repaired",
            "turned, before → after",
            "shifted, before → after",
            "largest turn left",
            "good moved",
            "spoiled images moved",
        ]
    ]
    for one in found:
        turned = f"{_degrees(one.degrees_before)} → {_degrees(one.degrees_after)}"
        shifted = f"{_percent(one.shift_before)} → {_percent(one.shift_after, 2)}"
        known = one.degrees_after is not None
        rows.append(
            [
                one.name,
                str(one.pose_faults),
                _percent(one.repaired),
                turned if known else _ABSENT,
                shifted if known else _ABSENT,
                _degrees(one.largest_degrees_after),
                _percent(one.good_moved),
                _percent(one.image_faults_moved),
            ]
        )
    return rows


def markdown(title: str, explanation: str, rows: Rows) -> str:
    """Lay rows out as a Markdown table under a heading and what is to be known about it."""
    lines = [" | ".join(row) for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
    return f"## {title}\n\n{explanation}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


def _auroc(found: Figures | None) -> str:
    return _ABSENT if found is None else _number(found.auroc)


def _number(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.3f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return _ABSENT if value is None else f"{100.0 * value:.{digits}f} %"


def _degrees(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.2f}°"
