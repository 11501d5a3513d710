"""What every command does with a user's mistake: one clear line on stderr and exit code 2."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 2
"""The code with which tyro, too, leaves on a flag that it cannot read."""

SHOW_TRACEBACK = "MTCM_TRACEBACK"
"""Environment variable that, when set, lets the exception through with its traceback, for a bug report."""

_MISTAKES = (ValueError, OSError)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn a user's mistake inside the block into one line on stderr and exit code 2.

    Mistakes are ``ValueError`` and the errors of a wrong path. Anything else is a bug, with its traceback.
    Ctrl-C ends with one line and the shell's code for it, 130.
    """
    try:
        yield
    except _MISTAKES as error:
        if os.environ.get(SHOW_TRACEBACK):
            raise
        print(f"error: {in_one_line(error)}", file=sys.stderr)
        raise SystemExit(EXIT_CODE) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None


def in_one_line(error: Exception) -> str:
    """Return an exception's message without line breaks; the system's own errors name their file first."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fspath(error.filename)}: {(error.strerror or 'cannot be read').lower()}"
    return " ".join(str(error).split()) or type(error).__name__
