"""Output to the terminal and input from it. Results go to stdout; progress, tables and logs go to stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)


def print_status(text: str) -> None:
    """Prints a line for the user on stderr, without interpreting markup."""
    console.print(text, markup=False, soft_wrap=True)


def silence() -> None:
    """Prints nothing from here on: for all but the main process of a training on several."""
    console.quiet = True


@contextmanager
def progress(*, counted: bool = True) -> Iterator[Progress]:
    """A progress display on stderr: description, bar, count, rate text (`task.fields["rate"]`), time left.

    If stderr is not a terminal, rich draws nothing until the end, so callers also print when a stage begins and ends.

    Args:
        counted: whether the count is shown.
    """
    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()]
    if counted:
        columns.append(MofNCompleteColumn())
    with Progress(
        *columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console, transient=False
    ) as bar:
        yield bar


def is_interactive() -> bool:
    """Whether stdin and stdout are both a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def prepare_input(prompt: bool) -> None:
    """Prepares `read_line`: line editing and history with a prompt; else bytes that are not text are replaced."""
    if prompt:
        with suppress(ImportError):  # not on Windows, whose console edits lines itself
            import readline  # noqa: F401
    elif isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")


def read_line(prompt: str) -> str | None:
    """The next line of stdin; None at the end of input or on Ctrl-C."""
    try:
        return input(prompt)
    except (EOFError, KeyboardInterrupt):
        if prompt:
            print_status("")
        return None


def printable(text: str) -> str:
    """The text without control characters, which could move the cursor or change colours."""
    return "".join(character for character in text if character == "\n" or character.isprintable())
