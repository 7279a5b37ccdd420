"""A new adapter while the daemon runs: good, corrupt, foreign."""

import asyncio
import logging
import os

import msgspec
import pytest

from bot.chat.adapter_watcher import AdapterWatcher
from doppel.adapters.update import update_version
from doppel.adapters.versions import AdapterRefused, roll_back
from doppel.engine import EngineUnavailable
from doppel.models.base import BaseIdentity
from tests.bot.harness import Harness, incoming, publish


@pytest.fixture
def watcher(harness: Harness) -> AdapterWatcher:
    return AdapterWatcher(
        harness.config.adapters_dir, harness.config.reply, harness.engine, harness.responder, harness.clock
    )


async def reply(harness: Harness, event: int) -> str | None:
    harness.engine.turns = [["ok"]]
    await harness.on_message(incoming(event))
    await harness.clock.advance(60)
    version: str | None = (await harness.outbox_rows())[-1].adapter
    return version


async def test_next_reply_uses_the_new_version(
    harness: Harness, watcher: AdapterWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    assert await reply(harness, 1) == "0001"
    publish(harness.config)
    with caplog.at_level(logging.INFO):
        await watcher.poll()
    assert await reply(harness, 2) == "0002"
    assert harness.engine.adapters == ["0001#1", "0002#2"]
    assert harness.engine.loaded == ["0002#2"]
    assert "switched to adapter 0002" in caplog.text


async def test_sampling_that_was_tuned_since_is_taken_up(
    harness: Harness, watcher: AdapterWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    before = harness.responder.adapter
    assert before is not None
    await watcher.poll()
    assert harness.responder.adapter is before
    tuned = {"temperature": 0.7, "min_p": 0.05}
    update_version(before.persona.folder, lambda _, manifest: msgspec.structs.replace(manifest, sampling=tuned))
    with caplog.at_level(logging.INFO):
        await watcher.poll()
        await watcher.poll()
    after = harness.responder.adapter
    assert after is not None
    assert (after.sampling.temperature, after.sampling.min_p, after.name) == (0.7, 0.05, before.name)
    assert caplog.text.count("adapter 0001: using its tuned sampling") == 1
    (before.persona.folder / "manifest.json").write_text("{}")
    await watcher.poll()
    assert harness.responder.adapter is after
    assert await reply(harness, 1) == "0001"


async def test_reply_under_way_ends_with_the_version_it_began_with(harness: Harness, watcher: AdapterWatcher) -> None:
    harness.engine.gate.clear()
    harness.engine.turns = [["ok"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(3)
    publish(harness.config)
    await watcher.poll()
    harness.engine.gate.set()
    await harness.clock.advance(60)
    assert [row.adapter for row in await harness.outbox_rows()] == ["0001"]
    assert await reply(harness, 2) == "0002"


@pytest.mark.parametrize("damage", ["corrupt", "foreign", "incomplete", "engine"])
async def test_bad_adapter_is_refused_once_and_the_old_one_stays(
    harness: Harness, watcher: AdapterWatcher, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = publish(
        harness.config, base=BaseIdentity("other", "0" * 64) if damage == "foreign" else harness.engine.base
    )
    if damage == "corrupt":
        (folder / "adapter_model.safetensors").write_bytes(b"changed")
    elif damage == "incomplete":
        (folder / "manifest.json").unlink()
    elif damage == "engine":
        harness.engine.refuses = AdapterRefused("its numbers are not numbers")
    for _ in range(3):
        await watcher.poll()
    assert caplog.text.count("new adapter refused, keeping 0001") == 1
    assert await reply(harness, 1) == "0001"
    harness.engine.refuses = None
    publish(harness.config)
    await watcher.poll()
    assert await reply(harness, 2) == "0003"


def refused_as_engines_do(error: Exception) -> AdapterRefused:
    """An engine refuses an adapter that fails its test run, whatever the reason was (`raise ... from None`)."""
    refusal = AdapterRefused(f"0002: failed its test run: {error}")
    refusal.__context__ = error
    return refusal


@pytest.mark.parametrize(
    "error",
    [
        EngineUnavailable("the server is restarting"),
        OSError("too many open files"),
        MemoryError(),
        refused_as_engines_do(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")),
        refused_as_engines_do(EngineUnavailable("no response")),
    ],
    ids=repr,
)
async def test_an_adapter_that_failed_for_a_passing_reason_is_tried_again(
    harness: Harness, watcher: AdapterWatcher, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    publish(harness.config)
    harness.engine.refuses = error
    for _ in range(30):
        await watcher.poll()
        await harness.clock.advance(1)
    assert caplog.text.count("cannot be loaded now, keeping 0001 until it can") == 1
    assert harness.engine.load_attempts <= 8
    harness.engine.refuses = None
    await harness.clock.advance(60)
    await watcher.poll()
    assert await reply(harness, 1) == "0002"


async def test_a_refused_adapter_is_tried_again_when_its_manifest_changes(
    harness: Harness, watcher: AdapterWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    folder = publish(harness.config)
    weights = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(b"changed")
    await watcher.poll()
    (folder / "adapter_model.safetensors").write_bytes(weights)
    await harness.clock.advance(3600)
    await watcher.poll()
    assert await reply(harness, 1) == "0001"
    os.utime(folder / "manifest.json", (1, 1))
    await watcher.poll()
    assert await reply(harness, 2) == "0002"
    assert caplog.text.count("new adapter refused, keeping 0001") == 1


async def test_rollback_is_picked_up_too(harness: Harness, watcher: AdapterWatcher) -> None:
    publish(harness.config)
    await watcher.poll()
    roll_back(harness.config.adapters_dir)
    await watcher.poll()
    assert await reply(harness, 1) == "0001"


async def test_looks_once_a_second(harness: Harness, watcher: AdapterWatcher) -> None:
    task = asyncio.create_task(watcher.run())
    publish(harness.config)
    for _ in range(5):
        # Reading the folder happens on a thread that the stage's clock does not know.
        await harness.clock.advance(1)
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    async with asyncio.timeout(10):
        while harness.responder.adapter is None or harness.responder.adapter.version != "0002":
            await harness.clock.advance(1)
    assert harness.responder.adapter.version == "0002"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
