"""A new adapter while the daemon runs: good, corrupt, foreign."""

import asyncio
import logging

import msgspec
import pytest

from bot.chat.adapter_watcher import Pickup
from doppel.adapters.update import amend
from doppel.adapters.versions import AdapterRefused, rollback
from doppel.models.base import BaseIdentity
from tests.bot.stage import Stage, incoming, publish


@pytest.fixture
def pickup(stage: Stage) -> Pickup:
    return Pickup(stage.config, stage.engine, stage.voice, stage.clock)


async def reply(stage: Stage, event: int) -> str | None:
    stage.engine.turns = [["ok"]]
    await stage.hear(incoming(event))
    await stage.clock.advance(60)
    version: str | None = (await stage.outbox_rows())[-1].adapter
    return version


async def test_next_reply_uses_the_new_version(stage: Stage, pickup: Pickup, caplog: pytest.LogCaptureFixture) -> None:
    assert await reply(stage, 1) == "0001"
    publish(stage.config)
    with caplog.at_level(logging.INFO):
        await pickup.look()
    assert await reply(stage, 2) == "0002"
    assert stage.engine.adapters == ["0001#1", "0002#2"]
    assert stage.engine.loaded == ["0002#2"]
    assert "new adapter in use: 0002" in caplog.text


async def test_sampling_that_was_tuned_since_is_taken_up(
    stage: Stage, pickup: Pickup, caplog: pytest.LogCaptureFixture
) -> None:
    before = stage.voice.loaded
    assert before is not None
    await pickup.look()
    assert stage.voice.loaded is before
    tuned = {"temperature": 0.7, "min_p": 0.05}
    amend(before.persona.folder, lambda _, manifest: msgspec.structs.replace(manifest, sampling=tuned))
    with caplog.at_level(logging.INFO):
        await pickup.look()
        await pickup.look()
    after = stage.voice.loaded
    assert after is not None
    assert (after.sampling.temperature, after.sampling.min_p, after.name) == (0.7, 0.05, before.name)
    assert caplog.text.count("adapter 0001 now speaks as it was tuned") == 1
    (before.persona.folder / "manifest.json").write_text("{}")
    await pickup.look()
    assert stage.voice.loaded is after
    assert await reply(stage, 1) == "0001"


async def test_reply_under_way_ends_with_the_version_it_began_with(stage: Stage, pickup: Pickup) -> None:
    stage.engine.gate.clear()
    stage.engine.turns = [["ok"]]
    await stage.hear(incoming(1))
    await stage.clock.advance(3)
    publish(stage.config)
    await pickup.look()
    stage.engine.gate.set()
    await stage.clock.advance(60)
    assert [row.adapter for row in await stage.outbox_rows()] == ["0001"]
    assert await reply(stage, 2) == "0002"


@pytest.mark.parametrize("damage", ["corrupt", "foreign", "incomplete", "engine"])
async def test_bad_adapter_is_refused_once_and_the_old_one_stays(
    stage: Stage, pickup: Pickup, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = publish(stage.config, base=BaseIdentity("other", "0" * 64) if damage == "foreign" else stage.engine.base)
    if damage == "corrupt":
        (folder / "adapter_model.safetensors").write_bytes(b"changed")
    elif damage == "incomplete":
        (folder / "manifest.json").unlink()
    elif damage == "engine":
        stage.engine.refuses = AdapterRefused("its numbers are not numbers")
    for _ in range(3):
        await pickup.look()
    assert caplog.text.count("new adapter refused, 0001 stays in use") == 1
    assert await reply(stage, 1) == "0001"
    stage.engine.refuses = None
    publish(stage.config)
    await pickup.look()
    assert await reply(stage, 2) == "0003"


async def test_rollback_is_picked_up_too(stage: Stage, pickup: Pickup) -> None:
    publish(stage.config)
    await pickup.look()
    rollback(stage.config.adapters_dir)
    await pickup.look()
    assert await reply(stage, 1) == "0001"


async def test_looks_once_a_second(stage: Stage, pickup: Pickup) -> None:
    task = asyncio.create_task(pickup.run())
    publish(stage.config)
    for _ in range(5):
        # Reading the folder happens on a thread that the stage's clock does not know.
        await stage.clock.advance(1)
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    async with asyncio.timeout(10):
        while stage.voice.loaded is None or stage.voice.loaded.version != "0002":
            await stage.clock.advance(1)
    assert stage.voice.loaded.version == "0002"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
