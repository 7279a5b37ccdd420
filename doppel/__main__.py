"""`python -m doppel` is the `doppel` command."""

from doppel.cli import main

main()
