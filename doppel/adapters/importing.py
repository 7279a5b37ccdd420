"""`doppel adapters import`: an adapter made elsewhere becomes a version of the persona.

Everything is checked before anything is published: that it is a plain LoRA, that the configured base has its layers
in their sizes, and that it was made for that base. How well it imitates anybody is not known here.
"""

from pathlib import Path
from typing import Any

import msgspec

from doppel.adapters.guard import read_guard
from doppel.adapters.habits import read_habits, write_habits
from doppel.adapters.lora_file import Lora, base_layers, check_fits, read_lora
from doppel.adapters.peft_format import check_named_base, read_peft_adapter, write_lora
from doppel.adapters.versions import (
    MANIFEST,
    Manifest,
    check_base,
    list_versions,
    publishing,
    read_manifest,
    version_folder,
)
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity, identify, prepare_base
from doppel.terminal import print_status
from doppel.transcript import FORMATS


def import_adapter(config: Config, folder: Path, *, force: bool, use: bool = False) -> dict[str, Any]:
    """Publishes the adapter in a folder as the persona's next version.

    Args:
        config: whose persona and base model it is for.
        folder: what PEFT saved, or a version that doppel published elsewhere.
        force: take it although it names another base model.
        use: put it in use at once. Otherwise it is only published: nobody has examined it yet.

    Returns:
        What `doppel adapters import --json` prints.

    Raises:
        UserError: there is no adapter. AdapterRefused: it is damaged, no plain LoRA, or not for this base.
    """
    if not folder.is_dir():
        raise UserError(tr("{path}: no such folder; give one with {name}", path=folder, name="adapter_config.json"))
    base_folder = prepare_base(config.model, print_status)
    base = identify(base_folder, config.model.base)
    lora, manifest = (_own if (folder / MANIFEST).exists() else _foreign)(config, folder, base, force=force)
    check_fits(lora, base_layers(base_folder))
    with publishing(config.adapters_dir, manifest, in_use=use) as staging:
        write_lora(staging, lora, base)
        write_habits(staging, read_habits(folder))
        if (guard := read_guard(folder)) is not None:
            guard.write(staging)
    published = version_folder(config.adapters_dir, list_versions(config.adapters_dir)[-1])
    print_status(
        tr(
            "Imported as version {version}: rank {rank} on {layers} layers.",
            version=published.name,
            rank=lora.scaling.r,
            layers=len(lora.layers),
        )
    )
    if use:
        print_status(tr("Version {version} is the current one now.", version=published.name))
    else:
        print_status(
            tr(
                "It is not in use yet; `doppel evaluate {version}` examines it, "
                "`doppel adapters use {version}` puts it in use.",
                version=published.name,
            )
        )
    return {
        "adapter": str(published),
        "version": published.name,
        "in_use": use,
        "rank": lora.scaling.r,
        "alpha": lora.scaling.lora_alpha,
        "layers": len(lora.layers),
        "training": manifest.training,
    }


def _own(config: Config, folder: Path, base: BaseIdentity, *, force: bool) -> tuple[Lora, Manifest]:
    """A version that doppel published elsewhere: all that its manifest says stays known."""
    manifest = read_manifest(folder)
    if not force:
        check_base(folder, manifest, base)
    lora = read_lora(folder, manifest.base)
    return lora, msgspec.structs.replace(manifest, persona=config.persona.name, base=base)


def _foreign(config: Config, folder: Path, base: BaseIdentity, *, force: bool) -> tuple[Lora, Manifest]:
    """What PEFT saved: of its training nothing is known but what it was called and its settings."""
    found = read_peft_adapter(folder, pickled=True)
    if not force:
        check_named_base(found, base)
    if found.base is None:
        print_status(tr("{path}: does not say which base model it was made for; its layers are compared.", path=folder))
    if found.unknown:
        print_status(
            tr("{path}: left out settings that are not PEFT's: {names}", path=folder, names=", ".join(found.unknown))
        )
    scaling = found.lora.scaling
    imported = {"weights": found.digest, "base": found.base}
    manifest = Manifest(
        persona=config.persona.name,
        base=base,
        transcript=FORMATS[config.transcript],
        training={"imported": imported, "rank": scaling.r, "alpha": scaling.lora_alpha},
    )
    return found.lora, manifest
