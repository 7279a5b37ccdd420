"""Runs the daemon's parts in tests: fake clock, engine and platform, a real store."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Browser

from doppel.transcript import Transcript
from tests.bot.browser import chromium
from tests.bot.harness import FakeEngine, FakePlatform, Harness, config_in
from tests.bot.postgres import POSTGRES_PROGRAMS, PostgresServer, running_postgres

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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def new_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Creates empty databases; each test that uses one runs on all kinds."""
    if request.param == "sqlite":
        numbers = itertools.count(1)
        return lambda: f"sqlite:///{tmp_path / 'data' / f'doppel{next(numbers)}.db'}"
    if POSTGRES_PROGRAMS is None:
        pytest.skip("PostgreSQL is not installed")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database


@pytest.fixture
def store_url(new_store_url: Callable[[], str]) -> str:
    """The URL of an empty database."""
    return new_store_url()


@pytest.fixture
async def make_harness(tmp_path: Path, store_url: str, tiny_transcript: Transcript) -> AsyncIterator[MakeHarness]:
    """`await make_harness(*platforms, ready=True, **config)` starts a harness, by default with one fake Telegram."""
    harnesses: list[Harness] = []

    async def make(*platforms: FakePlatform, ready: bool = True, **content: object) -> Harness:
        content = {"store": store_url, **content}
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
