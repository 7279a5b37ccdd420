"""Metrics for Prometheus: what the store holds and the daemon is doing, read when somebody asks; no texts, no ids.

Names and labels are part of what users build dashboards and alerts on: change them only with an entry in CHANGELOG.md.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection, Table, func, select

from bot.chat.responder import Responder
from bot.platforms.connection import PlatformConnection
from bot.store import Store
from bot.store.schema import InboxState, OutboxState, chats, inbox, outbox
from doppel.errors import DoppelError

Counts = dict[tuple[str, str], int]
"""Rows by platform and state."""

_SECONDS = (0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)


class Metrics:
    """The daemon's metrics in a registry of its own.

    Args:
        persona: whose daemon it is.
        store: counted at each call of `render`.
        responder: the engine, the adapter, and replies in progress.
        connections: the platforms that are on.
        not_ready_reason: why no reply is possible now; None if one is.
    """

    def __init__(
        self,
        persona: str,
        store: Store,
        responder: Responder,
        connections: Mapping[str, PlatformConnection],
        not_ready_reason: Callable[[], str | None],
    ) -> None:
        self._persona = persona
        self._store = store
        self._responder = responder
        self._connections = connections
        self._not_ready_reason = not_ready_reason
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        seconds = Histogram(
            "doppel_generation_seconds",
            "Seconds from the engine's turn at a reply to its end, replies without text included.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        responder.observe_generation = seconds.observe

    async def render(self) -> bytes:
        """All metrics in Prometheus's text format. Those of a store that fails are left out."""
        try:
            counts = await self._store.run(count_by_state, self._store.persona)
        except DoppelError:
            counts = None
        return generate_latest(_Families([*self._registry.collect(), *self._families(counts)]))

    def _families(self, counts: tuple[Counts, Counts] | None) -> Iterable[Metric]:
        yield _gauge("doppel_ready", "1 while a reply is possible.", self._not_ready_reason() is None)
        yield _gauge("doppel_store_failing", "1 if the last transaction failed.", self._store.failure is not None)
        yield _gauge(
            "doppel_replies_in_progress",
            "Replies and posts that are being generated, or wait for the engine.",
            self._responder.in_progress,
        )
        if counts is not None:
            messages, bubbles = counts
            names = self._connections.keys()
            yield _by_state(
                "doppel_messages", "Stored messages by what became of them.", messages, names, tuple(InboxState)
            )
            yield _by_state(
                "doppel_bubbles",
                "Stored bubbles by what became of them; unknown: it is in doubt whether they arrived.",
                bubbles,
                names,
                tuple(OutboxState),
            )
        connected = GaugeMetricFamily(
            "doppel_platform_has_connected", "1 once a platform has connected since the start.", labels=["platform"]
        )
        for name, connection in self._connections.items():
            connected.add_metric([name], connection.connected.is_set())
        yield connected
        if (stats := self._responder.engine_stats()) is not None:
            yield _gauge("doppel_engine_active", "Requests that the engine is generating.", stats.active)
            yield _gauge("doppel_engine_max_active", "The most it generates at once.", stats.max_active)
            yield _gauge("doppel_engine_waiting", "Requests that wait in the engine.", stats.waiting)
            yield _gauge("doppel_engine_prefix_cache_bytes", "Memory of the cached turns.", stats.prefix_cache_bytes)
        if (adapter := self._responder.adapter) is not None:
            info = InfoMetricFamily("doppel_adapter", "The adapter in use.")
            info.add_metric([], {"persona": self._persona, "version": adapter.version})
            yield info


def count_by_state(connection: Connection, persona: str) -> tuple[Counts, Counts]:
    """The persona's messages and bubbles, counted by platform and state."""
    return _count(connection, inbox, persona), _count(connection, outbox, persona)


def _count(connection: Connection, table: Table, persona: str) -> Counts:
    # Counted by chat first: the index by state and chat holds all that is needed, so no row is read.
    by_chat = (
        select(table.c.chat_id, table.c.state, func.count().label("rows"))
        .group_by(table.c.state, table.c.chat_id)
        .subquery()
    )
    rows = connection.execute(
        select(chats.c.platform, by_chat.c.state, func.sum(by_chat.c.rows))
        .join_from(by_chat, chats, by_chat.c.chat_id == chats.c.id)
        .where(chats.c.persona == persona)
        .group_by(chats.c.platform, by_chat.c.state)
    )
    return {(platform, state): int(count) for platform, state, count in rows}


class _Families:
    """Finished metrics, as a collector."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _by_state(
    name: str, text: str, counts: Counts, platforms: Iterable[str], states: tuple[str, ...]
) -> GaugeMetricFamily:
    """A gauge with every state of every platform, so that an alert sees 0 and not nothing."""
    family = GaugeMetricFamily(name, text, labels=["platform", "state"])
    for platform in sorted({*platforms, *(platform for platform, _ in counts)}):
        for state in states:
            family.add_metric([platform, state], counts.get((platform, state), 0))
    return family
