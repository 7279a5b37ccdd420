"""Published adapter versions on disk: training writes them, the engines serve them.

`adapters/<persona>/<version>/` holds the LoRA weights, `habits.json` and `manifest.json` with the SHA-256 of every
file; the file `current` next to the versions names the one in use. Publishing is atomic: a version is complete or
absent, and `current` names the old or the new one. Nothing read is trusted: digests, format, base and rank are checked
before any weight is read, and pickled weights are never read.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.models.base import BaseIdentity
from doppel.system.atomic_file import open_atomically
from doppel.system.atomic_folder import move_into_place, restore_folder, staging_folder
from doppel.system.durable_files import file_digest, regular_files
from doppel.system.file_lock import holding_lock
from doppel.system.private_folder import make_private_folder
from doppel.system.stale_files import remove_stale
from doppel.system.write_errors import translate_write_errors
from doppel.transcript import FORMAT, FORMATS

SCHEMA = 1
MANIFEST = "manifest.json"
CURRENT = "current"
_STAGING = ".publishing-"
_RETIRED = ".amended-"
_LOCK = ".updating.lock"
WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
RANK_CAP = 512
_SHORT_DIGEST = 8
_VERSION = re.compile(r"^\d{4,}$")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter is, what it was trained on and how to serve it.

    Attributes:
        transcript: name of the transcript format it was trained on.
        template: digest of the base's chat template as used in that format; empty for `doppel-1`.
        header_vocabulary: the values seen in training, by header field.
        sampling: tuned sampling settings, by name.
        fidelity: scores of the evaluation.
        files: SHA-256 of every file but the manifest, by path relative to the folder.
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
    """An adapter that must not be served; the message names the file or setting at fault."""


@contextmanager
def publishing(adapters_dir: Path, manifest: Manifest, *, in_use: bool = True) -> Iterator[Path]:
    """A folder to write the adapter's files into; it becomes the next version when the block ends.

    If the block raises, or the disk is full, nothing changes.

    Args:
        adapters_dir: `adapters/<persona>/`, created if missing.
        manifest: of the version, without `version`, `created_at` and `files`, which are filled in.
        in_use: whether it becomes the current version.

    Raises:
        DoppelError: the adapters folder cannot be written.
    """
    with translate_write_errors(adapters_dir):
        make_private_folder(adapters_dir)
    with translate_write_errors(adapters_dir), staging_folder(adapters_dir, _STAGING) as staging:
        remove_stale(adapters_dir, f".{CURRENT}", datetime.now(UTC))
        yield staging
        version = _next_version(adapters_dir)
        created_at = datetime.now(UTC).isoformat(timespec="seconds")
        write_manifest(staging, msgspec.structs.replace(manifest, version=version, created_at=created_at))
        if not in_use:
            move_into_place(staging, adapters_dir / version)
            return
        with open_atomically(adapters_dir / CURRENT) as pointer:
            _write_version(pointer, version)  # so that a full disk is noticed before the version can be seen
            move_into_place(staging, adapters_dir / version)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Writes a manifest with the digests of the folder's files, and returns it. Raises OSError."""
    paths = [path for path in regular_files(folder) if path != folder / MANIFEST]
    complete = msgspec.structs.replace(
        manifest, files={str(path.relative_to(folder)): file_digest(path) for path in paths}
    )
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(complete), indent=2))
    return complete


def list_versions(adapters_dir: Path) -> list[str]:
    """Published versions, oldest first."""
    if not adapters_dir.is_dir():
        return []
    return sorted((path.name for path in adapters_dir.iterdir() if _VERSION.match(path.name)), key=int)


def current_version(adapters_dir: Path) -> Path | None:
    """Folder of the version in use; None if nothing has been published."""
    try:
        version = (adapters_dir / CURRENT).read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return adapters_dir / version if _VERSION.match(version) else None


def version_folder(adapters_dir: Path, version: str | None = None) -> Path:
    """Folder of a version, not yet checked; None is the current one. Raises UserError if there is no such version."""
    if version is None:
        folder = current_version(adapters_dir)
        if folder is None:
            raise UserError(tr("{path}: no adapter yet; run `doppel train` (or `doppel up`) first", path=adapters_dir))
        _finish_interrupted_update(folder)
        return folder
    if _VERSION.match(version):
        _finish_interrupted_update(adapters_dir / version)
    if version not in list_versions(adapters_dir):
        published = ", ".join(list_versions(adapters_dir)) or tr("none")
        raise UserError(
            tr("no adapter version {version}; published: {published}", version=version, published=published)
        )
    return adapters_dir / version


def retired_path(folder: Path) -> Path:
    """Where the old state of a version is moved while `doppel.adapters.update` replaces it."""
    return folder.with_name(f"{_RETIRED}{folder.name}")


@contextmanager
def updating(folder: Path) -> Iterator[None]:
    """Holds the lock of those that replace a published version; one that a crash left aside is back in its place.

    Raises OSError.
    """
    with holding_lock(folder.with_name(_LOCK)):
        restore_folder(folder, retired_path(folder))
        yield


def _finish_interrupted_update(folder: Path) -> None:
    """Puts back a version whose update was cut short by a crash. If it is being updated now, waits for that."""
    if not folder.exists() and retired_path(folder).exists():
        with suppress(OSError), updating(folder):  # in a folder that cannot be written the version stays missing
            pass


def use_version(adapters_dir: Path, version: str) -> Path:
    """Makes a published version the current one, after checking it. Raises UserError, AdapterRefused, DoppelError."""
    folder = version_folder(adapters_dir, version)
    read_manifest(folder)
    with open_atomically(adapters_dir / CURRENT) as pointer:
        _write_version(pointer, version)
    return folder


def roll_back(adapters_dir: Path) -> Path:
    """Makes the version before the current one the current one. Raises UserError if there is none."""
    current = current_version(adapters_dir)
    older = [version for version in list_versions(adapters_dir) if current and int(version) < int(current.name)]
    if not older:
        raise UserError(tr("there is no earlier adapter to go back to"))
    return use_version(adapters_dir, older[-1])


def read_manifest(folder: Path) -> Manifest:
    """Reads and verifies an adapter folder: every file is present, regular, listed and unchanged.

    Raises:
        AdapterRefused: a file is missing, extra, changed, a link or pickled, or the format or rank is not supported.
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
    """Raises AdapterRefused if the adapter was trained on another base model."""
    if manifest.base.digest == base.digest:
        return
    if manifest.base.id == base.id:
        raise AdapterRefused(
            tr(
                "{path}: trained on another base model: other weights of {base} (SHA-256 {theirs}…, here {ours}…); "
                "train it again",
                path=folder,
                base=base.id,
                theirs=manifest.base.digest[:_SHORT_DIGEST],
                ours=base.digest[:_SHORT_DIGEST],
            )
        )
    raise AdapterRefused(
        tr(
            "{path}: trained on another base model ({theirs}); model.base is {ours}",
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
        ranks = [rank, *(int(value) for value in (settings.get("rank_pattern") or {}).values())]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AdapterRefused(tr("{path}: {name} cannot be read", path=folder, name=PEFT_CONFIG)) from None
    if kind != "LORA" or not all(0 < value <= RANK_CAP for value in ranks):
        raise AdapterRefused(tr("{path}: not a LoRA of rank 1 to {cap}", path=folder, cap=RANK_CAP))


def _next_version(adapters_dir: Path) -> str:
    # A version that is being updated is elsewhere for a moment; its number is taken.
    names = [path.name.removeprefix(_RETIRED) for path in adapters_dir.iterdir()]
    return f"{max((int(name) for name in names if _VERSION.match(name)), default=0) + 1:04d}"


def _write_version(pointer: IO[bytes], version: str) -> None:
    """Writes the content of `current` to disk. It is a file, because not every system has symbolic links."""
    pointer.write(f"{version}\n".encode("ascii"))
    pointer.flush()
    os.fsync(pointer.fileno())
