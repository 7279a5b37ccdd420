"""The persona as the daemon has it loaded: one engine, one adapter in use, swapped between two turns.

Knows how to say a turn; knows no chat, no store and no platform.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from bot.clock import Clock
from doppel.adapters.habits import Habits
from doppel.config import Config
from doppel.engine import Engine, Sampling
from doppel.i18n import tr
from doppel.persona import Bubble, Persona, speak
from doppel.transcript import Turn

TRIES = 3
"""A model may end its turn before it says anything; it is asked again so often."""

OBJECTIONS = 2
"""The guard may object to a reply so often; then nothing is said."""

SILENT = "the persona had nothing to say"
BLOCKED = "the guard kept the reply back"
"""Reasons of messages that were thought about and left without a reply."""

log = logging.getLogger(__name__)


class LoadedAdapter(msgspec.Struct, frozen=True):
    """An adapter in the engine: whose it is, the engine's name for it, how it is sampled."""

    persona: Persona
    name: str
    sampling: Sampling

    @property
    def version(self) -> str:
        return self.persona.manifest.version


class Reply(msgspec.Struct, frozen=True):
    """A turn the persona wants to say: its bubbles (none: it keeps silent, and why) and the adapter it came from."""

    bubbles: tuple[str, ...]
    version: str
    silence: str = SILENT


class Responder:
    """Speaks with the adapter in use once `wake` was called; before that everybody waits."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._engine: Engine | None = None
        self._loaded: LoadedAdapter | None = None
        self._ready = asyncio.Event()

    @property
    def loaded(self) -> LoadedAdapter | None:
        """The adapter in use; None before the persona is awake."""
        return self._loaded

    @property
    def habits(self) -> Habits:
        """The timing of the adapter in use."""
        return self._loaded.persona.habits if self._loaded else Habits()

    def is_ready(self) -> bool:
        """Whether a reply can be given now."""
        return self._engine is not None and self._engine.health().ready

    def start(self, engine: Engine, loaded: LoadedAdapter) -> None:
        """From now on turns are said with this engine and adapter."""
        self._engine = engine
        self._loaded = loaded
        self._ready.set()

    async def wait_until_ready(self) -> None:
        """Waits until `wake` was called."""
        await self._ready.wait()

    def switch_adapter(self, loaded: LoadedAdapter) -> None:
        """Turns that begin after this use the new adapter; those being said end with the old one."""
        self._loaded = loaded

    async def respond(
        self, *, kind: str, platform: str, contact: str | None = None, turns: Sequence[Turn] = ()
    ) -> Reply:
        """The persona's next turn; silence, when the guard objects to what it says, and to what it says instead.

        Args:
            kind: `dm`, `group` or `post`.
            platform: where it will be said.
            contact: pseudonym of the other person, in a conversation of two.
            turns: what was said before, oldest first; empty: the persona speaks of its own accord.

        Raises:
            EngineError: the engine is full, closed or failed.
        """
        await self.wait_until_ready()
        reply = Reply((), "")
        objections = 0
        for _ in range(TRIES):
            reply = await self._try(kind, platform, contact, turns)
            objections += reply.silence == BLOCKED
            if reply.bubbles or objections == OBJECTIONS:
                break
        return reply

    async def _try(self, kind: str, platform: str, contact: str | None, turns: Sequence[Turn]) -> Reply:
        """One turn, all of it with the adapter that is in use when it begins."""
        engine, loaded, reply = self._engine, self._loaded, self._config.reply
        assert engine is not None
        assert loaded is not None
        header = loaded.persona.header(
            kind=kind, now=self._clock.now(), zone=self._config.zone, platform=platform, contact=contact
        )
        words = speak(
            engine,
            loaded.name,
            header,
            turns,
            loaded.sampling,
            max_bubbles=reply.max_bubbles,
            candidates=reply.candidates,
        )
        async with aclosing(words) as events:
            bubbles = [event.text async for event in events if isinstance(event, Bubble)]
        guard = loaded.persona.guard if reply.guard else None
        objection = guard.objects("\n".join(bubbles)) if guard is not None else None
        if objection is not None:
            log.warning(tr("{platform}: a reply is not sent: {reason}", platform=platform, reason=objection))
            return Reply((), loaded.version, BLOCKED)
        return Reply(tuple(bubbles), loaded.version)
