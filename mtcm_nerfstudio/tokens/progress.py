"""Progress bars on standard error."""

import sys
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.progress import track

Track = Callable[[Iterable, str, int], Iterable]
"""Shows progress: what to go through, what is being done, how many there are."""


def progress_bars(shown: bool = True) -> Track:
    """Return what shows a bar that goes when all is done; none if it is not wanted or there is nothing to do."""

    def bar(items: Iterable, description: str, total: int) -> Iterable:
        if not shown or not total:
            return items
        return track(items, description, total=total, console=Console(file=sys.stderr), transient=True)

    return bar
