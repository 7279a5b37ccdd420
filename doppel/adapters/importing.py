"""`doppel adapters import`: publishes an adapter made elsewhere as a version of the persona.

It must be a plain LoRA, made for the configured base, whose layers must have the same names and sizes.
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
        config: for the persona and the base model.
        folder: in PEFT's format, or a version that doppel published elsewhere.
        force: accept it even if it names another base model.
        use: make it the current version at once; otherwise it is only published, because it has not been evaluated.

    Returns:
        What `doppel adapters import --json` prints.

    Raises:
        UserError: the folder or its adapter is missing.
        AdapterRefused: the adapter is damaged, not a plain LoRA, or not for this base.
    """
    if not folder.is_dir():
        raise UserError(tr("{path}: no such folder; give one with {name}", path=folder, name="adapter_config.json"))
    base_folder = prepare_base(config.model, print_status)
    base = identify(base_folder, config.model.base)
    read = _read_published if (folder / MANIFEST).exists() else _read_peft
    lora, manifest = read(config, folder, base, force=force)
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


def _read_published(config: Config, folder: Path, base: BaseIdentity, *, force: bool) -> tuple[Lora, Manifest]:
    """A version that doppel published elsewhere; it keeps its manifest."""
    manifest = read_manifest(folder)
    if not force:
        check_base(folder, manifest, base)
    lora = read_lora(folder, manifest.base)
    return lora, msgspec.structs.replace(manifest, persona=config.persona.name, base=base)


def _read_peft(config: Config, folder: Path, base: BaseIdentity, *, force: bool) -> tuple[Lora, Manifest]:
    """An adapter in PEFT's format; its manifest records where it came from."""
    adapter = read_peft_adapter(folder, pickled=True)
    if not force:
        check_named_base(adapter, base)
    if adapter.base is None:
        print_status(tr("{path}: does not name its base model; only the layers were compared.", path=folder))
    if adapter.unknown:
        names = ", ".join(adapter.unknown)
        print_status(tr("{path}: ignored settings that PEFT does not have: {names}", path=folder, names=names))
    scaling = adapter.lora.scaling
    imported = {"weights": adapter.digest, "base": adapter.base}
    manifest = Manifest(
        persona=config.persona.name,
        base=base,
        transcript=FORMATS[config.transcript],
        training={"imported": imported, "rank": scaling.r, "alpha": scaling.lora_alpha},
    )
    return adapter.lora, manifest
