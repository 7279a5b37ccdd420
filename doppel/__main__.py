"""`python -m doppel` is the `doppel` command."""

from doppel.cli.app import main

main()
