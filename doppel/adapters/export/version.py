"""`doppel adapters export`: a published version as a merged model, or as a LoRA for llama.cpp."""

from pathlib import Path
from typing import Any

from doppel.adapters.export.gguf import write_gguf
from doppel.adapters.export.merged import write_merged
from doppel.adapters.export.target import check_free, exporting
from doppel.adapters.lora_file import Lora, read_lora
from doppel.adapters.versions import version_folder
from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.models.base import identify, prepare_base
from doppel.models.bundled import BUNDLED, write_bundled_gguf
from doppel.terminal import print_status


def export_merged(config: Config, version: str | None, target: Path) -> dict[str, Any]:
    """Writes base and adapter as one model into the folder `target`.

    Args:
        config: for the persona and the base.
        version: None is the current one.
        target: a new or empty folder.

    Returns:
        What `--json` prints.

    Raises:
        UserError: there is no such version, or something is at `target`.
        AdapterRefused: the version is damaged or of another base. DoppelError: the target cannot be written.
    """
    target = check_free(target, folder=True)
    lora, base_folder = _read_version(config, version)
    print_status(tr("Merging version {version} into {base} …", version=lora.folder.name, base=config.model.base))
    write_merged(lora, base_folder, target)
    print_status(tr("Written: {path}, a model in Hugging Face format.", path=target))
    return {"version": lora.folder.name, "merged": str(target)}


def export_gguf(config: Config, version: str | None, target: Path, base_target: Path | None) -> dict[str, Any]:
    """Writes the adapter as a GGUF LoRA, and optionally the bundled base as GGUF.

    Args:
        config: for the persona and the base.
        version: None is the current one.
        target: the adapter's file, which must not exist.
        base_target: the bundled base's file, which must not exist; None does not write it.

    Returns:
        What `--json` prints.

    Raises:
        UserError: there is no such version, something is at a target, or llama.cpp does not support this base.
        AdapterRefused: the version is damaged or of another base. DoppelError: a target cannot be written.
    """
    target = check_free(target, folder=False)
    if base_target is not None:
        base_target = check_free(base_target, folder=False)
        if config.model.base != BUNDLED:
            raise UserError(
                tr(
                    "--base-gguf: only the bundled base comes as GGUF; download {base} as GGUF from the Hugging Face "
                    "hub, or convert it with llama.cpp's convert_hf_to_gguf.py",
                    base=config.model.base,
                )
            )
    lora, base_folder = _read_version(config, version)
    write_gguf(lora, base_folder, target)
    result = {"version": lora.folder.name, "gguf": str(target)}
    if base_target is not None:
        _write_bundled(base_target)
        result["base_gguf"] = str(base_target)
    base = tr("BASE.gguf") if base_target is None else str(base_target)
    print_status(tr("Written: {path}. For example: llama-server -m {base} --lora {path}", path=target, base=base))
    return result


def _read_version(config: Config, version: str | None) -> tuple[Lora, Path]:
    folder = version_folder(config.adapters_dir, version)
    base_folder = prepare_base(config.model, print_status)
    return read_lora(folder, identify(base_folder, config.model.base)), base_folder


def _write_bundled(target: Path) -> None:
    with exporting(target, folder=False) as path:
        write_bundled_gguf(path)
    print_status(tr("Gemma is provided under the Gemma Terms of Use: {path}", path="https://ai.google.dev/gemma/terms"))
