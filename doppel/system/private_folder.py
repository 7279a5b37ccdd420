"""Folders that only the user may open: they hold private messages and what was learned from them."""

from pathlib import Path


def make_private_folder(path: Path) -> None:
    """Creates a folder and its missing parents, all of them for the user alone; one that is there stays as it is.

    Raises:
        OSError: it cannot be created.
    """
    if path.is_dir():
        return
    make_private_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
