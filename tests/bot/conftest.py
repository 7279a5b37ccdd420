"""Runs the daemon's parts in tests: fake clock, engine and platform, a real store."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Browser

from doppel.transcript import Transcript
from tests.bot.browser import chromium
from tests.bot.harness import FakeEngine, FakePlatform, Harness, config_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MakeHarness = Callable[..., Awaitable[Harness]]


@pytest.fixture(scope="session")
def tiny_transcript(tiny_tokenizer: "PreTrainedTokenizerFast") -> Transcript:
    return Transcript(tiny_tokenizer)


@pytest.fixture
def engine(tiny_transcript: Transcript) -> FakeEngine:
    return FakeEngine(tiny_transcript)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def make_harness(tmp_path: Path, tiny_transcript: Transcript) -> AsyncIterator[MakeHarness]:
    """`await make_harness(*platforms, ready=True, **config)` starts a harness, by default with one fake Telegram."""
    harnesses: list[Harness] = []

    async def make(*platforms: FakePlatform, ready: bool = True, **content: object) -> Harness:
        harness = Harness(config_in(tmp_path, **content), tiny_transcript, *(platforms or (FakePlatform(),)))
        await harness.start(ready=ready)
        harnesses.append(harness)
        return harness

    yield make
    for harness in harnesses:
        await harness.stop()


@pytest.fixture
async def harness(make_harness: MakeHarness) -> Harness:
    return await make_harness()
