"""`python -m training` is `doppel train`, for launchers that start several processes.

`torchrun --nproc-per-node 2 -m training train` and `accelerate launch -m training` take the options of `doppel train`.
"""

import sys

import typer

from doppel.cli.app import as_command
from training.commands.train import train


def main() -> None:
    """Entry point."""
    cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    cli.command("train")(as_command(train))
    cli(args=sys.argv[2:] if sys.argv[1:2] == ["train"] else sys.argv[1:])


if __name__ == "__main__":
    main()
