"""Run COLMAP in a subprocess, so that a crash of pycolmap does not end this process."""

import multiprocessing
import os
import sqlite3
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from mtcm_nerfstudio.capture.process.sfm import Job, MappingResult, Report, Stage, reconstruct

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class _Failed:
    message: str


@dataclass(frozen=True)
class _Progress:
    stage: Stage
    done: int
    total: int


def reconstruct_in_subprocess(job: Job, report: Report) -> MappingResult | None:
    """Run ``reconstruct`` in a child process and return its result.

    Raises:
        ValueError: the child failed or died; the message says in which stage and where COLMAP's log is.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_run_child, args=(job, sending), daemon=True)
    child.start()
    sending.close()
    try:
        return _followed(job, receiving, report)
    finally:
        child.kill()
        child.join()
        receiving.close()


def _run_child(job: Job, connection: Connection) -> None:
    """Reconstruct in this process, whose output goes to the log, and end when the parent does."""
    job.work.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        connection.send(reconstruct(job, lambda *progress: connection.send(_Progress(*progress))))
    except Exception as error:
        connection.send(_Failed(str(error)))


def _end_with_parent() -> None:
    """Wait for the parent's end; COLMAP must not go on writing to a database that a new run may open."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _followed(job: Job, connection: Connection, report: Report) -> MappingResult | None:
    """Pass on how far the child is until it sends its result."""
    now = _Progress("features", 0, len(job.names))
    while True:
        try:
            message = connection.recv() if connection.poll(_POLL_SECONDS) else _counted(job, now)
        except EOFError as error:
            raise ValueError(_death_notice(job, now.stage, "its process died")) from error
        if isinstance(message, _Failed):
            raise ValueError(_death_notice(job, now.stage, " ".join(message.message.split())[:200]))
        if not isinstance(message, _Progress):
            return message
        now = message
        report(now.stage, now.done, now.total)


def _counted(job: Job, now: _Progress) -> _Progress:
    """Count in the database what the child has done of its stage; mapping reports by itself."""
    if now.stage == "mapping":
        return now
    table = "descriptors" if now.stage == "features" else "two_view_geometries"
    return _Progress(now.stage, min(count_rows(job.database, table), now.total), now.total)


def count_rows(database: Path, table: Literal["descriptors", "two_view_geometries"]) -> int:
    """Count a table's rows without disturbing who writes to it; 0 while there is no such table."""
    try:
        connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)
    except sqlite3.Error:
        return 0
    try:
        return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        connection.close()


def _death_notice(job: Job, stage: Stage, reason: str) -> str:
    return f"COLMAP failed during {stage} ({reason}); its log is {job.log}. Run again to go on from there"
