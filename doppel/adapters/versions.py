"""Adapters on disk: the one hand-over from training to serving.

`adapters/<persona>/<version>/` holds the LoRA weights, `habits.json` and `manifest.json` with the SHA-256 of
every file; the file `current` beside the versions names the one in use. Publishing is atomic: a version
is complete or absent, `current` is old or new. Reading trusts nothing: digests, format, base and rank are
checked before any weight is read, and pickle is never read at all.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity
from doppel.system.durable_files import file_digest, fsync_path, regular_files
from doppel.system.stale_files import remove_stale
from doppel.system.write_errors import translate_write_errors
from doppel.transcript import FORMAT, FORMATS

SCHEMA = 1
MANIFEST = "manifest.json"
CURRENT = "current"
_STAGING = ".publishing-"
_POINTER = ".current-"
_ASIDE = ".amended-"
WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
RANK_CAP = 512
_VERSION = re.compile(r"^\d{4,}$")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter is, what it was trained on and how to serve it.

    `transcript` is the name of its format, and `template` the digest of what the base's chat template gave to it.
    """

    persona: str
    base: BaseIdentity
    version: str = ""
    schema: int = SCHEMA
    created_at: str = ""
    transcript: str = FORMAT
    template: str = ""
    header_vocabulary: dict[str, list[str]] = {}
    sampling: dict[str, float] = {}
    dataset: dict[str, Any] = {}
    training: dict[str, Any] = {}
    fidelity: dict[str, Any] = {}
    files: dict[str, str] = {}


class AdapterRefused(DoppelError):
    """An adapter that must not be served; the text says which file or field is wrong."""


@contextmanager
def publishing(adapters_dir: Path, manifest: Manifest, *, in_use: bool = True) -> Iterator[Path]:
    """A folder to write the adapter's files into; on success it becomes the next version and, if `in_use`, `current`.

    The folder is a sibling under a temporary name. When the block ends, every file is digested and synced,
    the manifest is written, the folder renamed and `current` swapped. If the block raises, or the disk is full,
    nothing changes.

    Raises:
        DoppelError: the adapters folder cannot be written.
    """
    with translate_write_errors(adapters_dir):
        adapters_dir.mkdir(parents=True, exist_ok=True)
        for prefix in (_STAGING, _POINTER):
            remove_stale(adapters_dir, prefix, datetime.now(UTC))
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=adapters_dir))
        try:
            yield staging
            files = {str(path.relative_to(staging)): file_digest(path) for path in regular_files(staging)}
            version = _next_version(adapters_dir)
            complete = msgspec.structs.replace(
                manifest, version=version, created_at=datetime.now(UTC).isoformat(timespec="seconds"), files=files
            )
            (staging / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(complete), indent=2))
            for path in regular_files(staging):
                fsync_path(path)
            staging.chmod(0o755)
            fsync_path(staging)
            with _pointer(adapters_dir, version) as pointer:  # written before anything can be seen
                staging.rename(adapters_dir / version)
                if in_use:
                    _swap(pointer, adapters_dir)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def list_versions(adapters_dir: Path) -> list[str]:
    """Published versions, oldest first."""
    if not adapters_dir.is_dir():
        return []
    return sorted((path.name for path in adapters_dir.iterdir() if _VERSION.match(path.name)), key=int)


def current_version(adapters_dir: Path) -> Path | None:
    """Folder of the version in use; None when nothing is published yet."""
    try:
        version = (adapters_dir / CURRENT).read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return adapters_dir / version if _VERSION.match(version) else None


def version_folder(adapters_dir: Path, version: str | None = None) -> Path:
    """Folder of a version, unread; None is the current one. Raises UserError when there is no such version."""
    if version is None:
        folder = current_version(adapters_dir)
        if folder is None:
            raise UserError(tr("{path}: no adapter yet; run `doppel train` (or `doppel up`) first", path=adapters_dir))
        restore_interrupted_update(folder)
        return folder
    if version not in list_versions(adapters_dir):
        known = ", ".join(list_versions(adapters_dir)) or tr("none")
        raise UserError(tr("no adapter version {version}; published: {known}", version=version, known=known))
    return adapters_dir / version


def retired_path(folder: Path) -> Path:
    """Where a version lies for the moment in which another takes its place (`doppel.adapters.update`)."""
    return folder.with_name(f"{_ASIDE}{folder.name}")


def restore_interrupted_update(folder: Path) -> None:
    """Puts back a version that a crash in that moment left aside."""
    if retired_path(folder).is_dir() and not folder.exists():
        retired_path(folder).rename(folder)


def use_version(adapters_dir: Path, version: str) -> Path:
    """Makes a published version the current one, after checking it. Raises UserError, AdapterRefused."""
    folder = version_folder(adapters_dir, version)
    read_manifest(folder)
    with translate_write_errors(adapters_dir), _pointer(adapters_dir, version) as pointer:
        _swap(pointer, adapters_dir)
    return folder


def roll_back(adapters_dir: Path) -> Path:
    """Goes back to the version before the current one. Raises UserError when there is none."""
    now = current_version(adapters_dir)
    older = [version for version in list_versions(adapters_dir) if now and int(version) < int(now.name)]
    if not older:
        raise UserError(tr("there is no earlier adapter to go back to"))
    return use_version(adapters_dir, older[-1])


def read_manifest(folder: Path) -> Manifest:
    """Reads and verifies an adapter folder: every file present, regular, listed and with its digest.

    Raises:
        AdapterRefused: anything is missing, extra, changed, a link, pickled, of another format or too large.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise AdapterRefused(tr("{path}: not an adapter folder", path=folder))
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise AdapterRefused(tr("{path}: has no manifest.json", path=folder)) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise AdapterRefused(tr("{path}: manifest.json cannot be read: {error}", path=folder, error=error)) from None
    if manifest.schema != SCHEMA or manifest.transcript not in FORMATS.values():
        raise AdapterRefused(
            tr(
                "{path}: made for another version of doppel ({format}); train it again",
                path=folder,
                format=manifest.transcript,
            )
        )
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            raise AdapterRefused(tr("{path}: {name} is a link", path=folder, name=name))
        if path.is_file() and name != MANIFEST and name not in manifest.files:
            raise AdapterRefused(tr("{path}: {name} is not in the manifest", path=folder, name=name))
    for name, digest in manifest.files.items():
        if not (folder / name).resolve().is_relative_to(folder.resolve()) or not (folder / name).is_file():
            raise AdapterRefused(tr("{path}: {name} is missing", path=folder, name=name))
        if file_digest(folder / name) != digest:
            raise AdapterRefused(tr("{path}: {name} is damaged (its digest differs)", path=folder, name=name))
    _check_peft_config(folder, manifest)
    return manifest


def check_base(folder: Path, manifest: Manifest, base: BaseIdentity) -> None:
    """Raises AdapterRefused when the adapter was trained on another base model."""
    if manifest.base.digest != base.digest:
        raise AdapterRefused(
            tr(
                "{path}: trained on another base model ({theirs}); this one is {ours}",
                path=folder,
                theirs=manifest.base.id,
                ours=base.id,
            )
        )


def _check_peft_config(folder: Path, manifest: Manifest) -> None:
    for name in (WEIGHTS, PEFT_CONFIG):
        if name not in manifest.files:
            raise AdapterRefused(tr("{path}: {name} is missing", path=folder, name=name))
    try:
        settings = json.loads((folder / PEFT_CONFIG).read_text(encoding="utf-8"))
        kind, rank = settings["peft_type"], int(settings["r"])
        ranks = [rank, *(int(one) for one in (settings.get("rank_pattern") or {}).values())]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=PEFT_CONFIG)) from None
    if kind != "LORA" or not all(0 < one <= RANK_CAP for one in ranks):
        raise AdapterRefused(tr("{path}: not a LoRA of rank 1 to {cap}", path=folder, cap=RANK_CAP))


def _next_version(adapters_dir: Path) -> str:
    return f"{max((int(version) for version in list_versions(adapters_dir)), default=0) + 1:04d}"


@contextmanager
def _pointer(adapters_dir: Path, version: str) -> Iterator[Path]:
    """A file to become `current`, on the disk already. A file and not a symlink: it works on every system."""
    handle, name = tempfile.mkstemp(prefix=_POINTER, dir=adapters_dir)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(version + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _swap(pointer: Path, adapters_dir: Path) -> None:
    """Makes it `current`, in one step."""
    pointer.replace(adapters_dir / CURRENT)
    fsync_path(adapters_dir)
