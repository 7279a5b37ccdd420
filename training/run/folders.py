"""The folders next to a data set that hold an unfinished training, tracker files, and searches for settings."""

from pathlib import Path


def run_folder(data_dir: Path) -> Path:
    """`data/<persona>.training/`, an unfinished training of the persona."""
    return data_dir.with_name(data_dir.name + ".training")


def tracking_folder(data_dir: Path) -> Path:
    """`data/<persona>.tracking/`, for trackers that write files."""
    return data_dir.with_name(data_dir.name + ".tracking")


def tuning_folder(data_dir: Path) -> Path:
    """`data/<persona>.tuning/`, the searches of `doppel tune`."""
    return data_dir.with_name(data_dir.name + ".tuning")
