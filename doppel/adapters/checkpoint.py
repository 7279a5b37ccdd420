"""Opens any adapter folder for serving (`--adapter`): a published version, or a checkpoint of a running training.

A checkpoint is a PEFT folder without a manifest. What all checkpoints of a training have in common (persona,
transcript, header values, habits) is stored once, in the folder that contains them.
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
from doppel.system.atomic_file import write_atomically
from doppel.terminal import print_status
from doppel.transcript import FORMATS

_COMMON = "checkpoints.json"


class OpenedAdapter(msgspec.Struct, frozen=True):
    """An adapter folder with a manifest.

    Attributes:
        version: the name to show; None is the manifest's.
    """

    folder: Path
    version: str | None


def describe_checkpoints(folder: Path, manifest: Manifest, habits: Habits) -> None:
    """Writes what all checkpoints in `folder` have in common. Raises DoppelError, OSError."""
    write_atomically(folder / _COMMON, msgspec.json.encode(manifest))
    write_habits(folder, habits)


@contextmanager
def open_adapter(folder: Path, config: Config) -> Iterator[OpenedAdapter]:
    """An adapter folder, published or not, that can be served within the block.

    A checkpoint is copied and gets a manifest, because its training may remove it at any time.

    Args:
        folder: a version's folder, `data/<persona>.training/checkpoint-<step>`, or a folder that PEFT saved.
        config: for the base model, and for the persona if the folder does not name one.

    Raises:
        UserError: the folder or its adapter is missing.
        AdapterRefused: the adapter is damaged, pickled, not a plain LoRA, or of another base.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise UserError(
            tr(
                "{path}: no such folder; --adapter takes adapters/<persona>/<version> or a training checkpoint",
                path=folder,
            )
        )
    if (folder / MANIFEST).exists():
        yield OpenedAdapter(folder, None)
        return
    base_folder = prepare_base(config.model, print_status)
    base = identify(base_folder, config.model.base)
    adapter = read_peft_adapter(folder, pickled=False)
    check_named_base(adapter, base)
    check_fits(adapter.lora, base_layers(base_folder))
    if adapter.lora.scaling.r > RANK_CAP:
        raise AdapterRefused(tr("{path}: not a LoRA of rank 1 to {cap}", path=folder, cap=RANK_CAP))
    with tempfile.TemporaryDirectory(prefix="doppel-") as temporary:
        manifest, habits = _read_common(folder.parent) or _defaults(config, base)
        with publishing(Path(temporary), manifest) as staging:
            write_lora(staging, adapter.lora, base)
            write_habits(staging, habits)
        yield OpenedAdapter(version_folder(Path(temporary)), folder.name)


def _read_common(folder: Path) -> tuple[Manifest, Habits] | None:
    """What `describe_checkpoints` wrote; None for an adapter that doppel did not train."""
    try:
        return msgspec.json.decode((folder / _COMMON).read_bytes(), type=Manifest), read_habits(folder)
    except (OSError, msgspec.MsgspecError):
        return None


def _defaults(config: Config, base: BaseIdentity) -> tuple[Manifest, Habits]:
    """For an adapter that doppel did not train: the configured persona, and an empty header in prompts."""
    return Manifest(persona=config.persona.name, base=base, transcript=FORMATS[config.transcript]), Habits()
