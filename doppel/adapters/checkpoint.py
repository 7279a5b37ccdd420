"""Any adapter folder for a try: a published version, or a checkpoint of a training that goes on.

A checkpoint is what PEFT saves, with no manifest. What all checkpoints of a training have in common (persona,
transcript, header values, habits) the training writes once into the folder they are in. Knows no trainer.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from doppel.adapters.habits import Habits, read_habits, write_habits
from doppel.adapters.lora_file import base_layers, check_fits
from doppel.adapters.peft_format import check_named_base, read_peft_adapter, write_lora
from doppel.adapters.versions import MANIFEST, RANK_CAP, AdapterRefused, Manifest, publishing, version_folder
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity, identify, prepare_base
from doppel.terminal import print_status
from doppel.transcript import FORMATS

_COMMON = "checkpoints.json"


class OpenedAdapter(msgspec.Struct, frozen=True):
    """An adapter folder with a manifest, and what its version is called; None: as the manifest says."""

    folder: Path
    version: str | None


def describe_checkpoints(folder: Path, manifest: Manifest, habits: Habits) -> None:
    """Writes what all checkpoints in `folder` have in common. Raises OSError."""
    part = folder / f".{_COMMON}"
    part.write_bytes(msgspec.json.encode(manifest))
    part.replace(folder / _COMMON)
    write_habits(folder, habits)


@contextmanager
def open_adapter(folder: Path, config: Config) -> Iterator[OpenedAdapter]:
    """An adapter folder, published or not, to be served while the block lasts.

    A checkpoint is copied out of the way of its training, which removes old ones, and its manifest is made up.

    Args:
        folder: a version's folder, `data/<persona>.training/checkpoint-<step>`, or what PEFT saved elsewhere.
        config: names the base model, and the persona where the folder does not.

    Raises:
        UserError: there is no adapter. AdapterRefused: it is damaged, pickled, no plain LoRA, or of another base.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise UserError(
            tr(
                "{path}: no such folder; --adapter takes adapters/<persona>/<version> or a checkpoint of a training",
                path=folder,
            )
        )
    if (folder / MANIFEST).exists():
        yield OpenedAdapter(folder, None)
        return
    base_folder = prepare_base(config.model, print_status)
    base = identify(base_folder, config.model.base)
    found = read_peft_adapter(folder, pickled=False)
    check_named_base(found, base)
    check_fits(found.lora, base_layers(base_folder))
    if found.lora.scaling.r > RANK_CAP:
        raise AdapterRefused(tr("{path}: not a LoRA of rank 1 to {cap}", path=folder, cap=RANK_CAP))
    with tempfile.TemporaryDirectory(prefix="doppel-") as temporary:
        manifest, habits = _common(folder.parent) or _unknown(config, base)
        with publishing(Path(temporary), manifest) as staging:
            write_lora(staging, found.lora, base)
            write_habits(staging, habits)
        yield OpenedAdapter(version_folder(Path(temporary)), folder.name)


def _common(folder: Path) -> tuple[Manifest, Habits] | None:
    """What a training says of all its checkpoints; None where no training of doppel's did."""
    try:
        return msgspec.json.decode((folder / _COMMON).read_bytes(), type=Manifest), read_habits(folder)
    except (OSError, msgspec.MsgspecError):
        return None


def _unknown(config: Config, base: BaseIdentity) -> tuple[Manifest, Habits]:
    """Of an adapter from elsewhere: the configuration's persona, and no header values, so that none is written."""
    return Manifest(persona=config.persona.name, base=base, transcript=FORMATS[config.transcript]), Habits()
