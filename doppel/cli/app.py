"""The `doppel` command: collects the commands of all installed packages and runs one.

A command is a function `name(run: Run, *, options...) -> dict | None` with an entry point in the group
`doppel.commands`. It prints for people on stderr through `doppel.terminal`. With `--json`, what it returns is printed
on stdout as one JSON object.
"""

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from typer.main import get_command

from doppel.config import Config, load_config
from doppel.errors import DoppelError, ExitCode
from doppel.i18n import set_language, tr
from doppel.plugins import installed_platforms, secret_variables
from doppel.redaction import redact_stderr, redactor_for

Command = Callable[..., dict[str, Any] | None]

ORDER = (
    *("up", "build", "train", "evaluate", "quiz", "tune", "run", "service", "chat", "adapters"),
    *("forget", "mydata", "store", "doctor"),
)


class Run:
    """What every command is given: the path of the configuration, and the values of the shared options."""

    def __init__(self, config_path: Path, as_json: bool = False, debug: bool = False) -> None:
        self.config_path = config_path
        self.as_json = as_json
        self.debug = debug
        self.show_error: Callable[[DoppelError], None] = print_error
        """Called with the error that ends the command."""
        self._config: Config | None = None

    @property
    def config(self) -> Config:
        """The configuration, read on first use. Raises UserError."""
        if self._config is None:
            self._config = load_config(self.config_path)
            set_language(self._config.language)
        return self._config


def app() -> typer.Typer:
    """The command-line application with every installed command."""
    cli = typer.Typer(
        help="Your own archive becomes your own doppelgänger, on your own machine.",
        epilog="Exit codes: 0 done, 1 it failed, 2 the command or the configuration is wrong, 65 stored data is "
        "damaged, 75 it failed and is worth another start, 130 interrupted.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    commands = {point.name: point for point in entry_points(group="doppel.commands")}
    for name in sorted(commands, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        command = commands[name].load()
        if isinstance(command, typer.Typer):
            cli.add_typer(command, name=name)
        else:
            cli.command(name)(as_command(command))
    return cli


def as_command(function: Command) -> Callable[..., None]:
    """The command as typer takes it, with the shared options `--config`, `--json` and `--debug`, and its exit codes."""

    def command(config: Path, json: bool, debug: bool, **options: Any) -> None:
        run = Run(config, json, debug)
        raise typer.Exit(execute(run, lambda: function(run, **options)))

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = [
        _option("config", Path, Path("config.yaml"), "--config", "The configuration file."),
        _option("json", bool, False, "--json", "Print one JSON object on stdout."),
        _option("debug", bool, False, "--debug", "Show tracebacks and debug logs."),
    ]
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    command.__signature__ = inspect.Signature(keyword_only + shared)  # type: ignore[attr-defined]
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def execute(run: Run, work: Callable[[], dict[str, Any] | None]) -> int:
    """Runs a command's work and returns its exit code; a DoppelError becomes one line on stderr."""
    redact_stderr(redactor_for(os.environ, secret_variables(installed_platforms().plugins.values())))
    quiet_libraries(run.debug)
    try:
        result = work()
    except DoppelError as error:
        if run.debug:
            raise
        run.show_error(error)
        if run.as_json and error.result is not None:
            print(msgspec.json.encode(error.result).decode())
        return error.exit_code
    except KeyboardInterrupt:
        print(tr("\nInterrupted."), file=sys.stderr)
        return ExitCode.INTERRUPTED
    if run.as_json and result is not None:
        print(msgspec.json.encode(result).decode())
    return ExitCode.OK


def print_error(error: DoppelError) -> None:
    """Prints an error as one line on stderr."""
    Console(stderr=True, highlight=False).print(f"doppel: {error}", markup=False, soft_wrap=True, style="red")


def quiet_libraries(debug: bool) -> None:
    """Turns off the telemetry of libraries and, unless `debug` is set, their progress bars and warnings."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info" if debug else "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if debug else "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if debug:
        logging.basicConfig(level=logging.DEBUG)
    else:  # these warnings are for developers: a user cannot act on them
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns about every matrix that it quantises
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)


def command_line() -> Any:
    """The command with its help in the user's language, as click runs it."""
    command = get_command(app())
    _translate_help(command)
    return command


def main() -> None:
    """Entry point of the `doppel` script."""
    command_line()()


def _translate_help(command: Any) -> None:
    """Puts the help of a command, its options and its subcommands into the user's language."""
    command.help = tr(command.help) if command.help else command.help
    command.epilog = tr(command.epilog) if command.epilog else command.epilog
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = tr(parameter.help)
    for subcommand in getattr(command, "commands", {}).values():
        _translate_help(subcommand)


def _option(name: str, kind: type, default: Any, flag: str, text: str) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(flag, help=text)]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
