"""What every test gets: folders of its own instead of the user's, no tokens, and a tiny base model on request."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from doppel.config import ModelSettings
from doppel.i18n import set_language
from doppel.secrets import COMMON_SECRETS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# The same examples every time, so that a failure belongs to a change; HYPOTHESIS_PROFILE=explore looks for new ones.
_BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", _BUSY)
settings.register_profile("same", _BUSY, derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

PublishAdapter = Callable[..., Path]


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole run, also of several processes, so that a converted model is converted once."""
    run = tmp_path_factory.getbasetemp()
    cache = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "cache"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(autouse=True)
def isolated(
    session_cache: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """An empty home, English, no network for models, and none of the user's tokens."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("DOPPEL_CACHE", str(session_cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    for name in (*COMMON_SECRETS, "TELEGRAM_TOKEN", "DISCORD_TOKEN", "DOPPEL_WEB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    set_language("auto")
    yield
    set_language("auto")


@pytest.fixture(scope="session")
def bundled_base(session_cache: Path) -> Path:
    """Folder of the bundled base model; converting it takes a minute or two, so only slow tests ask for it."""
    from doppel.models.base import prepare_base

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOPPEL_CACHE", str(session_cache))
        return prepare_base(ModelSettings(), lambda line: None)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Gemma 3 with its tokenizer; `model.base` may name it. Do not write into it."""
    from tests.tiny import build_base

    return build_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_tokenizer() -> "PreTrainedTokenizerFast":
    """The tokenizer of `tiny_base`."""
    from tests.tiny import build_tokenizer

    return build_tokenizer()


@pytest.fixture(scope="session")
def publish_tiny_adapter(tiny_base: Path) -> PublishAdapter:
    """`publish_tiny_adapter(adapters_dir, persona="sample", seed=0)` publishes a random LoRA for `tiny_base`.

    Seeds give different weights. Returns the version's folder; further keywords as in `tests.tiny`.
    """
    from functools import partial

    from tests.tiny import publish_adapter

    return partial(publish_adapter, tiny_base)
