"""Views of a running search: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import abc
import contextlib
import logging
import os
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from automl.cli.tables import children_lines, print_children
from automl.cli.terminal import escaped, make_console, print
from automl.db.records import State
from automl.db.store import Store
from automl.listeners.base import SearchListener, TurnEnded
from automl.status import SearchStatus, StatusReader
from automl.wording import duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.live import Live
    from rich.progress import Progress

logger = logging.getLogger(__name__)
LIVE_SECONDS = 0.5
PLAIN_SECONDS = 5.0
STAGE_REFRESHES = 8  # per second
SPEC_LINES = 3  # of each of the best children, so that the live view fits on the screen


class View(SearchListener, abc.ABC):
    """Shows one run, as its listener or from another process.

    `turn` may be called at any rate; it reads the store at most once per interval.
    """

    def __init__(
        self, store: Store, name: str, *, interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._name = name
        self._interval = interval
        self._clock = clock
        self._reader = StatusReader(store, name)
        self._last = clock()
        self.notes: Sequence[str] = ()  # of the pool and the search
        self._printed_notes: set[str] = set()
        self._failure = ""  # why the view could not be drawn, the last time

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """A context manager for the run, from the first turn to the last."""
        with self.preparing():
            yield

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """A context manager for the preparation of the run, which calls `stage`."""
        yield

    def take_notes(self, notes: Sequence[str]) -> None:
        """Replaces the notes in the view. Each note is also printed once, so that it stays when the view is cleared."""
        for note in notes:
            if note not in self._printed_notes:
                self._printed_notes.add(note)
                with self._logging_errors():
                    self.note(note)
        self.notes = notes

    def turn_ended(self, event: TurnEnded) -> None:
        self.take_notes(event.notes)
        self.turn()

    def turn(self) -> None:
        now = self._clock()
        if now - self._last >= self._interval:
            self._last = now
            with self._logging_errors():
                self._show(self._status())

    def result(self) -> None:
        """Prints the best children after the run."""
        with self._logging_errors():
            status = self._status()
            if status.best:
                print_children(status.best, status.search)

    @contextlib.contextmanager
    def _logging_errors(self) -> Iterator[None]:
        """Logs an exception from drawing in one line, since a view must not end the search."""
        try:
            yield
        except Exception as error:
            if (failure := escaped(f"{type(error).__name__}: {error}")) != self._failure:  # once, not twice a second
                self._failure = failure
                logger.warning("The view could not be drawn: %s", failure, exc_info=logger.isEnabledFor(logging.DEBUG))

    def _status(self) -> SearchStatus:
        return self._reader.read()

    @abc.abstractmethod
    def stage(self, text: str) -> None:
        """Shows a step of the preparation, which may take seconds."""

    @abc.abstractmethod
    def note(self, text: str) -> None:
        """Shows a sentence to the user."""

    @abc.abstractmethod
    def download(self, done: int, total: int) -> None:
        """Shows how many bytes of a data set are downloaded."""

    @abc.abstractmethod
    def _show(self, status: SearchStatus) -> None: ...


class PlainView(View):
    """Prints a line whenever the status has changed."""

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(store, name, interval=PLAIN_SECONDS)
        self._shown = ""
        self._downloaded = -1
        self._stages: set[str] = set()

    def stage(self, text: str) -> None:
        if text not in self._stages:
            self._stages.add(text)
            self.note(text)

    def note(self, text: str) -> None:
        print(text, flush=True)

    def download(self, done: int, total: int) -> None:
        tenth = 10 * done // max(1, total)
        if tenth != self._downloaded:
            self._downloaded = tenth
            print(f"Downloading: {10 * tenth}% of {total / 1e6:.0f} MB", flush=True)

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        with super().live():
            yield
        with self._logging_errors():  # the end, which may come sooner than the next line is due
            self._show(self._status())

    def _show(self, status: SearchStatus) -> None:
        shown = status.summary.rpartition(", ")[0] if status.seconds_left is not None else status.summary
        if shown != self._shown:
            self._shown = shown
            print(status.summary, flush=True)


class LiveView(View):
    """A panel that rich redraws at short intervals."""

    def __init__(self, store: Store, name: str) -> None:
        from rich.live import Live

        super().__init__(store, name, interval=LIVE_SECONDS)
        self._console = make_console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._progress: Progress | None = None
        self._stage: Live | None = None

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        with _without_echo():
            try:
                yield
            finally:
                self._clear()

    def stage(self, text: str) -> None:
        from rich.live import Live

        if self._stage is None:
            self._stage = Live(console=self._console, transient=True, refresh_per_second=STAGE_REFRESHES)
            self._stage.start()
        self._stage.update(_Stage(text, self._clock), refresh=True)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def _clear(self) -> None:
        """Removes the panel and the spinner from the terminal."""
        if self._stage is not None:
            self._stage.stop()
            self._stage = None
        if self._live.is_started:
            # rich draws its last frame in full, and cannot clear a frame that is higher than the terminal.
            self._live.update("", refresh=True)
            self._live.stop()

    def download(self, done: int, total: int) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        if self._stage is not None:
            self._stage.stop()
            self._stage = None
        if self._progress is None:
            columns = ("Downloading", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self._console)
            self._progress.add_task("download", total=total)
            if not self._live.is_started:
                self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=done)
        if self._live.is_started:
            self._live.update(self._progress, refresh=True)
        if done >= total:
            self._progress.stop()

    def _show(self, status: SearchStatus) -> None:
        if not self._live.is_started:
            self._clear()
            self._live.start()
        self._live.update(panel(status, self.notes), refresh=True)


class _Stage:
    """A spinner with the present step of the preparation and its duration."""

    def __init__(self, text: str, clock: Callable[[], float]) -> None:
        from rich.spinner import Spinner

        self._text = text
        self._clock = clock
        self._began = clock()
        self._spinner = Spinner("dots")

    def __rich__(self) -> RenderableType:
        from rich.text import Text

        self._spinner.update(text=Text(f"{self._text} ({duration(self._clock() - self._began)})"))
        return self._spinner


@contextlib.contextmanager
def _without_echo() -> Iterator[None]:
    """Turns off the terminal's echo of pressed keys, such as ^C. An echo would move the view by a line, and its first
    line would stay when it is cleared."""
    before = None
    with contextlib.suppress(OSError, termios.error):
        if _in_foreground():
            before = termios.tcgetattr(sys.stdout)
            silent = [*before]
            silent[3] &= ~termios.ECHO
            termios.tcsetattr(sys.stdout, termios.TCSANOW, silent)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, termios.error):
            if before is not None and _in_foreground():
                termios.tcsetattr(sys.stdout, termios.TCSADRAIN, before)


def _in_foreground() -> bool:
    """Whether this process may change the terminal's settings. The kernel stops a background process that does."""
    return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()


def make_view(store: Store, name: str) -> View:
    return LiveView(store, name) if sys.stdout.isatty() else PlainView(store, name)


def panel(status: SearchStatus, notes: Sequence[str] = ()) -> RenderableType:
    """A panel of progress, children by state, the reward curve, time by phase, refused draws, the activity of each
    worker, and the best children."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    search = status.search
    heads = Table.grid(padding=(0, 2))
    budget = "" if search.budget is None else f" of {search.budget}"
    left = "" if status.seconds_left is None else f", about {duration(status.seconds_left)} left"
    heads.add_row("trained", f"{status.num_trained}{budget} in {duration(status.seconds)}{left}")
    others = [f"{status.counts[state]} {state}" for state in State if state != State.TRAINED]
    heads.add_row("children", ", ".join(others))
    if status.waiting and not status.running:
        heads.add_row("waiting", status.waiting)
    if status.curve:
        heads.add_row("rewards", status.curve)
    if status.speed:
        heads.add_row("speed", status.speed)
    if status.phases:
        heads.add_row("time", status.phases)
    for note in notes:
        heads.add_row("note", Text(note))  # not markup: a path may contain brackets
    if search.refused:
        heads.add_row("draws refused", ", ".join(f"{count} {reason}" for reason, count in search.refused.items()))
    parts: list[RenderableType] = [heads]
    if search.budget is not None:
        bar = Table.grid(expand=True)  # a bar alone ends without a new line
        bar.add_row(ProgressBar(total=search.budget, completed=status.num_trained))
        parts.insert(0, bar)
    if status.workers:
        parts += [Text(), *(Text(line, overflow="ellipsis", no_wrap=True) for line in status.workers)]
    if status.best:
        parts += [Text(), BestTable(status)]
    title = f"{search.name}: {search.space} on {search.task} by {search.controller}"
    return Panel(Group(*parts), title=Text(title), title_align="left", border_style="blue")


class BestTable:
    """A table of the best children for any width: their numbers and the beginning of their specs."""

    def __init__(self, status: SearchStatus) -> None:
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        lines = children_lines(self._status.best, self._status.search, options.max_width, most_lines=SPEC_LINES)
        for number, line in enumerate(lines):
            yield Text(line, style="" if number else "bold", no_wrap=True, overflow="ellipsis")
