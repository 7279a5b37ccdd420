"""What Prometheus is told, as its own parser reads it."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection, event

from bot.metrics import Metrics, count_by_state
from bot.store.schema import InboxState, OutboxState
from tests.bot.conftest import MakeHarness
from tests.bot.harness import FakePlatform, Harness, incoming

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def read(metrics: Metrics) -> Samples:
    """Every sample by its name and its labels."""
    text = (await metrics.render()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def metrics_of(harness: Harness, problem: str | None = None) -> Metrics:
    return Metrics("sample", harness.store, harness.responder, harness.connections, lambda: problem)


def by_state(samples: Samples, name: str, platform: str = "telegram") -> dict[str, float]:
    return {
        dict(labels)["state"]: value
        for (sample, labels), value in samples.items()
        if sample == name and dict(labels)["platform"] == platform
    }


async def test_messages_and_bubbles_are_counted_by_state(harness: Harness) -> None:
    metrics = metrics_of(harness)
    harness.engine.turns = [["hi", "there"]]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    await harness.on_message(incoming(2, chat="-100", kind="group", sender="8", mentions_bot=False))
    samples = await read(metrics)
    assert by_state(samples, "doppel_messages") == {
        **dict.fromkeys(map(str, InboxState), 0),
        "answered": 1,
        "ignored": 1,
    }
    assert by_state(samples, "doppel_bubbles") == {**dict.fromkeys(map(str, OutboxState), 0), "sent": 2}


async def test_a_bubble_in_doubt_is_seen(harness: Harness) -> None:
    metrics = metrics_of(harness)
    harness.engine.turns = [["hi"]]
    harness.platform.failures = [RuntimeError("a bug")]
    await harness.on_message(incoming(1))
    await harness.clock.advance(60)
    assert by_state(await read(metrics), "doppel_bubbles")["unknown"] == 1


async def test_what_the_daemon_does_now(harness: Harness) -> None:
    metrics = metrics_of(harness)
    harness.engine.turns = [["hi"]]
    harness.engine.gate.clear()
    await harness.on_message(incoming(1))
    await harness.clock.advance(5)
    samples = await read(metrics)
    assert samples["doppel_replies_in_progress", ()] == 1
    assert samples["doppel_generation_seconds_count", ()] == 0
    await harness.clock.advance(3)
    harness.engine.gate.set()
    await harness.clock.advance(60)
    samples = await read(metrics)
    assert samples["doppel_replies_in_progress", ()] == 0
    assert samples["doppel_generation_seconds_count", ()] == 1
    assert 3 <= samples["doppel_generation_seconds_sum", ()] <= 8
    assert samples["doppel_engine_max_active", ()] == 16
    assert samples["doppel_adapter_info", (("persona", "sample"), ("version", "0001"))] == 1
    assert samples["doppel_platform_has_connected", (("platform", "telegram"),)] == 1
    assert samples["doppel_ready", ()] == 1


async def test_before_the_engine_is_there(make_harness: MakeHarness) -> None:
    harness = await make_harness(FakePlatform(), FakePlatform("discord"), ready=False)
    samples = await read(metrics_of(harness, "starting: loading the model"))
    assert samples["doppel_ready", ()] == 0
    assert not any(name.startswith(("doppel_engine", "doppel_adapter")) for name, _ in samples)
    assert by_state(samples, "doppel_messages", "discord")["new"] == 0


async def test_a_store_that_fails_is_seen_and_hides_nothing_else(harness: Harness) -> None:
    metrics = metrics_of(harness)
    assert (await read(metrics))["doppel_store_failing", ()] == 0
    await harness.store.run(lambda connection: connection.exec_driver_sql("alter table outbox rename to gone"))
    samples = await read(metrics)
    assert samples["doppel_store_failing", ()] == 1
    assert samples["doppel_ready", ()] == 1
    assert by_state(samples, "doppel_messages") == {}
    await harness.store.run(lambda connection: connection.exec_driver_sql("alter table gone rename to outbox"))


@pytest.mark.parametrize("new_store_url", ["sqlite"], indirect=True)
async def test_counting_reads_only_an_index(harness: Harness) -> None:
    def plans(connection: Connection) -> str:
        queries: list[tuple[str, Any]] = []

        def collect(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            queries.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", collect)
        count_by_state(connection, "sample")
        event.remove(connection, "before_cursor_execute", collect)
        rows = [connection.exec_driver_sql(f"explain query plan {query}", values).all() for query, values in queries]
        return "\n".join(str(row[-1]) for plan in rows for row in plan)

    plan = await harness.store.run(plans)
    assert "SCAN inbox USING COVERING INDEX inbox_by_state" in plan
    assert "SCAN outbox USING COVERING INDEX outbox_by_state" in plan
