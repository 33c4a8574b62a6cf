"""Progress of long work: bars on a terminal, one line per stage where output is piped. Everything goes to stderr."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Tick = Callable[[int, int], None]
"""Told of work done so far and in all."""


class Reporter:
    """Where stages report. `quiet` says nothing but remarks."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet

    def note(self, text: str) -> None:
        """One line that the reader should see, whatever else is shown."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str, unit: str = "") -> Iterator[Tick]:
        """Show `title` while the block runs; the block may tell how far it is through the yielded function."""
        start = time.monotonic()
        if self.quiet:
            yield lambda _done, _total: None
        elif self.console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(title, total=None, unit=unit)
                yield lambda done, total: bar.update(task, completed=done, total=total)
        else:
            self.note(f"{title} ...")
            yield _Sparse(self.note, title)
        if not self.quiet:
            self.note(f"{title}: {_seconds(time.monotonic() - start)}")

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )


class Silent(Reporter):
    """Says nothing at all: for processes beside the one that speaks."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""


class _Sparse:
    """For pipes and logs: a line when a quarter more is done, at least ten seconds after the last."""

    def __init__(self, say: Callable[[str], None], title: str) -> None:
        self.say, self.title, self.share, self.at = say, title, 0.0, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        share = done / max(total, 1)
        if share - self.share >= 0.25 and share < 1.0 and time.monotonic() - self.at >= 10.0:
            self.share, self.at = share, time.monotonic()
            self.say(f"{self.title}: {100 * share:.0f} %")


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {int(value % 60)} s"


@contextmanager
def errors_only(*names: str) -> Iterator[None]:
    """Loggers of libraries (`""` is the root) say errors alone while the block runs, such as no retries one by one."""
    loggers = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    for logger, _ in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in loggers:
            logger.setLevel(level)
