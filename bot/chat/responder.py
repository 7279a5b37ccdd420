"""Writes the persona's replies and posts with the adapter in use, which can be replaced between two turns."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from zoneinfo import ZoneInfo

import msgspec

from bot.cancellation import cancel_after
from bot.clock import Clock
from bot.store.schema import IgnoreReason
from doppel.adapters.habits import Habits
from doppel.config import ReplySettings
from doppel.engine import Engine, EngineStats, EngineUnavailable, Sampling
from doppel.i18n import tr
from doppel.persona import GeneratedBubble, Persona, speak
from doppel.transcript import Turn

MAX_ATTEMPTS = 3
"""Generations for one reply: a model may end its turn before it writes anything."""

MAX_BLOCKED = 2
"""Generations that the guard may block; after that there is no reply."""

HANG_SECONDS = 300.0
"""An engine ends a request at its deadline. One that has not by now hangs."""

log = logging.getLogger(__name__)


class LoadedAdapter(msgspec.Struct, frozen=True):
    """An adapter that is loaded in the engine; `name` is the engine's name for it."""

    persona: Persona
    name: str
    sampling: Sampling

    @property
    def version(self) -> str:
        return self.persona.manifest.version


class Reply(msgspec.Struct, frozen=True):
    """A reply or post, and the adapter version that wrote it. Without bubbles, `reason` says why it is empty."""

    bubbles: tuple[str, ...]
    version: str
    reason: IgnoreReason = IgnoreReason.SILENT


class Responder:
    """Generates replies once `start` has been called; until then callers wait.

    Args:
        reply: sampling overrides and the limits of a reply.
        zone: the owner's time zone, for the transcript's header.
        clock: time.
    """

    def __init__(self, reply: ReplySettings, zone: ZoneInfo, clock: Clock) -> None:
        self._reply = reply
        self._zone = zone
        self._clock = clock
        self._engine: Engine | None = None
        self._adapter: LoadedAdapter | None = None
        self._started = asyncio.Event()
        self._turns = asyncio.Semaphore()
        self.generated = 0
        """Generations that the engine has finished since the start."""
        self.hangs = False
        """Whether the engine has stopped to respond."""
        self.in_progress = 0
        """Replies and posts that are being generated, or wait for the engine."""
        self.observe_generation: Callable[[float], None] = lambda seconds: None
        """Called with the seconds that each generation took."""

    @property
    def adapter(self) -> LoadedAdapter | None:
        """The adapter in use; None before `start`."""
        return self._adapter

    @property
    def habits(self) -> Habits:
        """The timing of the adapter in use."""
        return self._adapter.persona.habits if self._adapter else Habits()

    def is_ready(self) -> bool:
        """Whether the engine can generate a reply now."""
        return self._engine is not None and self._engine.health().ready

    def engine_stats(self) -> EngineStats | None:
        """How busy the engine is; None while there is none."""
        return None if self._engine is None else self._engine.stats()

    def start(self, engine: Engine, adapter: LoadedAdapter) -> None:
        """Begins to answer with this engine and adapter."""
        self._engine = engine
        self._adapter = adapter
        # First come, first served: the engine refuses what it has no room for, and then luck would decide.
        self._turns = asyncio.Semaphore(max(1, engine.stats().max_active // self._reply.candidates))
        self._started.set()

    def stop(self) -> None:
        """The engine is gone: callers wait until `start` is called again."""
        self._started.clear()
        self._engine = None

    async def wait_until_ready(self) -> None:
        """Waits for `start`."""
        await self._started.wait()

    def switch_adapter(self, adapter: LoadedAdapter) -> None:
        """Uses another adapter from the next turn on; a turn in progress finishes with the old one."""
        self._adapter = adapter

    async def respond(
        self, *, kind: str, platform: str, contact: str | None = None, turns: Sequence[Turn] = ()
    ) -> Reply:
        """The persona's next turn; empty when the model has nothing to say or the guard blocks what it says.

        Args:
            kind: `dm`, `group` or `post`.
            platform: where the turn will be sent.
            contact: pseudonym of the other person, in a direct message.
            turns: the conversation so far, oldest first; empty for a post.

        Raises:
            EngineUnavailable: the engine is busy or away. EngineError: it failed at this prompt.
        """
        self.in_progress += 1
        try:
            await self.wait_until_ready()
            return await self._respond(kind, platform, contact, turns)
        finally:
            self.in_progress -= 1

    async def _respond(self, kind: str, platform: str, contact: str | None, turns: Sequence[Turn]) -> Reply:
        """Generates until there is a reply, or it is clear that there will be none."""
        reply = Reply((), "")
        blocked = 0
        for _ in range(MAX_ATTEMPTS):
            async with self._turns:
                started_at = self._clock.monotonic()
                reply = await self._generate(kind, platform, contact, turns)
                self.observe_generation(self._clock.monotonic() - started_at)
            self.generated += 1
            blocked += reply.reason is IgnoreReason.BLOCKED
            if reply.bubbles or blocked == MAX_BLOCKED:
                break
        return reply

    async def _generate(self, kind: str, platform: str, contact: str | None, turns: Sequence[Turn]) -> Reply:
        """Generates one turn with the adapter that is in use when it begins, and checks it with the guard."""
        engine, adapter = self._engine, self._adapter
        if engine is None or adapter is None:  # it failed while this waited for its turn
            raise EngineUnavailable(tr("the engine is restarting"))
        header = adapter.persona.header(
            kind=kind, now=self._clock.now(), zone=self._zone, platform=platform, contact=contact, turns=turns
        )
        events = speak(
            engine,
            adapter.name,
            header,
            turns,
            adapter.sampling,
            max_bubbles=self._reply.max_bubbles,
            candidates=self._reply.candidates,
        )

        async def bubbles_of_turn() -> list[str]:
            async with aclosing(events):
                return [event.text async for event in events if isinstance(event, GeneratedBubble)]

        try:
            bubbles = await cancel_after(bubbles_of_turn(), HANG_SECONDS, self._clock)
        except TimeoutError:
            self.hangs = True
            raise EngineUnavailable(tr("the engine does not respond")) from None
        guard = adapter.persona.guard if self._reply.guard else None
        objection = guard.objects("\n".join(bubbles)) if guard is not None else None
        if objection is not None:
            log.warning(tr("{platform}: reply blocked: {reason}", platform=platform, reason=objection))
            return Reply((), adapter.version, IgnoreReason.BLOCKED)
        return Reply(tuple(bubbles), adapter.version)
