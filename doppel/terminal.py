"""What the user sees in the terminal. Results go to stdout; progress, tables and logs go to stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)


def print_status(text: str) -> None:
    """One line for the user, on stderr, as it is (no markup)."""
    console.print(text, markup=False, soft_wrap=True)


def silence() -> None:
    """Says and shows nothing from here on: for the copies of a process of which another one speaks."""
    console.quiet = True


@contextmanager
def progress(*, counted: bool = True) -> Iterator[Progress]:
    """A progress display on stderr: description, bar, count, rate text (`task.fields["rate"]`), time left.

    Off a terminal rich draws nothing until the end, so callers also `say` when a stage begins and ends.
    """
    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()]
    if counted:
        columns.append(MofNCompleteColumn())
    with Progress(
        *columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console, transient=False
    ) as bar:
        yield bar


def is_interactive() -> bool:
    """Whether a person sits at the terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def prepare_input(prompt: bool) -> None:
    """Line editing and history for a person; from a pipe, bytes that are no text do not end the reading."""
    if prompt:
        with suppress(ImportError):  # Windows has none, and edits lines without it
            import readline  # noqa: F401
    elif isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")


def read_line(prompt: str) -> str | None:
    """The next line; None at the end of input or on Ctrl-C."""
    try:
        return input(prompt)
    except (EOFError, KeyboardInterrupt):
        if prompt:
            print_status("")
        return None


def printable(text: str) -> str:
    """Text without control characters, which a terminal would obey."""
    return "".join(character for character in text if character == "\n" or character.isprintable())
