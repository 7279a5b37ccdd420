"""A stage for the daemon's inside: fake clock, engine and platform, a real store."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Browser

from doppel.transcript import Transcript
from tests.bot.browser import chromium
from tests.bot.stage import FakeEngine, FakePlatform, Stage, config_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MakeStage = Callable[..., Awaitable[Stage]]


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
async def make_stage(tmp_path: Path, tiny_transcript: Transcript) -> AsyncIterator[MakeStage]:
    """`await make_stage(*platforms, awake=True, **config)` starts a stage, by default with one fake Telegram."""
    stages: list[Stage] = []

    async def make(*platforms: FakePlatform, awake: bool = True, **content: object) -> Stage:
        stage = Stage(config_in(tmp_path, **content), tiny_transcript, *(platforms or (FakePlatform(),)))
        await stage.start(awake=awake)
        stages.append(stage)
        return stage

    yield make
    for stage in stages:
        await stage.stop()


@pytest.fixture
async def stage(make_stage: MakeStage) -> Stage:
    return await make_stage()
