"""The daemon's inside on a stage: a clock moved by hand, an engine that says what it is told, a recording platform."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal

from sqlalchemy import select

from bot.cancellation import cancel_tasks
from bot.chat.access import AccessList
from bot.chat.conversation import Services
from bot.chat.delivery import Delivery
from bot.chat.inbound import ChatRouter
from bot.chat.responder import LoadedAdapter, Responder
from bot.platforms import Answered, Incoming, Newest, Outgoing, Receive, SendFailed
from bot.platforms.connection import PlatformConnection
from bot.posts.scheduler import PostScheduler
from bot.store import Store
from bot.store.leases import Leases
from bot.store.schema import inbox, outbox, slots
from doppel.adapters.habits import Habits, write_habits
from doppel.adapters.versions import PEFT_CONFIG, WEIGHTS, Manifest, publishing
from doppel.config import Config, parse_config
from doppel.engine import EngineError, EngineStats, Health, Request, Token
from doppel.models.base import BaseIdentity
from doppel.persona import open_persona
from doppel.plugins import PlatformPlugin, PlatformSettings, Section, installed_platforms
from doppel.transcript import ME, Header, Transcript, Turn

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
BASE = BaseIdentity("fake", "f" * 64)
TYPING = Habits(seconds_per_character=0.5)


class FakeClock:
    """Time that stands still until `advance`. `wall_offset` is what somebody set the wall clock by."""

    def __init__(self) -> None:
        self.time = START
        self.wall_offset = timedelta()
        self.resolve: Callable[[], Awaitable[None]] = self._yield
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def now(self) -> datetime:
        return self.time + self.wall_offset

    def monotonic(self) -> float:
        return (self.time - START).total_seconds()

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: the wall clock goes on, waits do not."""
        self.wall_offset += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + timedelta(seconds=seconds), next(self._numbers), sleeper))
        await sleeper

    async def advance(self, seconds: float) -> None:
        """Moves on, waking every sleeper at its own time and letting what follows happen before the next."""
        end = self.time + timedelta(seconds=seconds)
        await self.resolve()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.time, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)
                await self.resolve()
        self.time = end
        await self.resolve()

    async def _yield(self) -> None:
        await asyncio.sleep(0)


class FakeEngine:
    """Says the next of `turns` (lists of bubbles; an exception is raised), and `always` after them.

    Waits for `gate` before it speaks. `fault` may fail a prompt before that.
    """

    base = BASE
    context_length = 4096

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript
        self.turns: list[list[str] | Exception] = []
        self.always: list[str] | None = None
        self.fault: Callable[[str], Exception | None] = lambda prompt: None
        self.prompts: list[str] = []
        self.adapters: list[str | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0
        self.loaded: list[str] = []
        self.dropped = asyncio.Event()
        self.refuses: Exception | None = None
        self.load_attempts = 0
        self._numbers = itertools.count(1)

    def transcript_of(self, adapter: str | None) -> Transcript:
        return self.transcript

    async def generate(self, request: Request) -> AsyncGenerator[Token]:
        self.prompts.append(self.transcript.tokenizer.decode(request.prompt))
        self.adapters.append(request.adapter)
        if (fault := self.fault(self.prompts[-1])) is not None:
            raise fault
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        turn = self.turns.pop(0) if self.turns else self.always or EngineError("nothing left to say")
        if isinstance(turn, Exception):
            raise turn
        for token in self._tokens(turn):
            yield Token(token, -1.0)

    def _tokens(self, bubbles: list[str]) -> list[int]:
        if not bubbles:
            return [next(iter(self.transcript.stop_ids))]
        whole = self.transcript.encode(Header(), [Turn(ME, tuple(bubbles))]).ids
        return whole[len(self.transcript.prompt(Header(), [])) :]

    async def load_adapter(self, folder: Path) -> str:
        self.load_attempts += 1
        if self.refuses is not None:
            raise self.refuses
        self.loaded.append(f"{folder.name}#{next(self._numbers)}")
        return self.loaded[-1]

    async def drop_adapter(self, name: str) -> None:
        self.loaded.remove(name)
        self.dropped.set()

    def health(self) -> Health:
        return Health(ready=True, adapters=tuple(self.loaded))

    def stats(self) -> EngineStats:
        return EngineStats(active=0, max_active=16, waiting=0)

    def close(self) -> None:
        pass


async def no_known_messages() -> dict[str, str]:
    """No chat is known yet."""
    return {}


class FakePlatform:
    """Records what it is asked to do; `failures` are raised by the next sends, None lets one through."""

    def __init__(self, name: str = "telegram", *, limit: int = 100, resend_is_safe: bool = False) -> None:
        self.name = name
        self.limit = limit
        self.resend_is_safe = resend_is_safe
        self.sent: list[tuple[float, str]] = []
        self.outgoing: list[Outgoing] = []
        self.typed: list[str] = []
        self.failures: list[SendFailed | Exception | None] = []
        self.permits: asyncio.Semaphore | None = None
        self.hold: asyncio.Event | None = None
        self.clock: FakeClock | None = None

    def missing(self) -> str | None:
        return None

    def length(self, text: str) -> int:
        return len(text)

    async def run(self, receive: Receive, connected: Callable[[], None], newest: Newest) -> None:
        connected()
        await asyncio.Event().wait()

    async def wait_for_rate_limit(self, chat: str) -> None:
        if self.permits is not None:
            await self.permits.acquire()

    async def send(self, outgoing: Outgoing) -> str:
        if self.hold is not None:
            await self.hold.wait()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        assert self.clock is not None
        self.sent.append(((self.clock.now() - START).total_seconds(), outgoing.text))
        self.outgoing.append(outgoing)
        return f"p{outgoing.id}"

    async def typing(self, chat: str) -> None:
        self.typed.append(chat)

    async def close(self) -> None:
        pass

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.sent]


def incoming(
    event: int,
    text: str = "hello",
    *,
    platform: str = "telegram",
    chat: str = "7",
    kind: Literal["dm", "group"] = "dm",
    sender: str = "7",
    mentions_bot: bool = True,
    allow_ids: tuple[str, ...] | None = None,
    answers: Answered | None = None,
) -> Incoming:
    return Incoming(
        platform=platform,
        event_id=str(event),
        chat=chat,
        kind=kind,
        sender=sender,
        sender_name="Ann",
        text=text,
        sent_at=START,
        message_id=f"m{event}",
        mentions_bot=mentions_bot,
        allow_ids=allow_ids or ((sender,) if kind == "dm" else (chat,)),
        answers=answers,
    )


def plugin(platform: Any, *, settings: type[Section] = PlatformSettings, off: str | None = None) -> PlatformPlugin[Any]:
    """A fake platform as an installed one; `off` says why it is off."""
    return PlatformPlugin(
        name=platform.name,
        settings=settings,
        open=lambda settings, environ: platform,
        find_problem=lambda settings, environ: off,
    )


def access_list(config: Config) -> AccessList:
    """The access list of a configuration with the installed platforms."""
    return AccessList(config.platforms, installed_platforms().plugins.values())


def config_in(folder: Path, **content: Any) -> Config:
    return parse_config({"timezone": "UTC", "telegram": {"allow": [7, "-100"]}, **content}, folder / "config.yaml")


VOCABULARY = {"kind": ["dm", "group", "post"]}
"""Header values that the adapter of the tests saw in training."""


def publish(config: Config, *, base: BaseIdentity = BASE, habits: Habits = TYPING) -> Path:
    """Publishes an adapter that is well-formed on disk; its weights only mean something to the fake engine."""
    manifest = Manifest(persona=config.persona.name, base=base, header_vocabulary=VOCABULARY)
    with publishing(config.adapters_dir, manifest) as staging:
        (staging / WEIGHTS).write_bytes(b"weights")
        (staging / PEFT_CONFIG).write_text('{"peft_type": "LORA", "r": 4}')
        write_habits(staging, habits)
    return config.adapters_dir / (config.adapters_dir / "current").read_text().strip()


class Harness:
    """Everything but the page, on one database; `restart` leaves it as a crash or an end would and begins anew."""

    def __init__(self, config: Config, transcript: Transcript, *platforms: FakePlatform) -> None:
        self.config = config
        self.clock = FakeClock()
        self.clock.resolve = self.resolve
        self.engine = FakeEngine(transcript)
        self.platforms = {platform.name: platform for platform in platforms}
        for platform in platforms:
            platform.clock = self.clock
        if not (config.adapters_dir / "current").exists():
            publish(config)

    @property
    def platform(self) -> FakePlatform:
        return next(iter(self.platforms.values()))

    async def start(self, *, ready: bool = True) -> None:
        random = Random(1)
        self.store = Store(self.config.store_url, self.config.persona.name)
        self.responder = Responder(self.config.reply, self.config.zone, self.clock)
        self.connections = {
            name: PlatformConnection(platform, self.clock, random) for name, platform in self.platforms.items()
        }
        for connection in self.connections.values():
            connection.connected.set()
        reply, access = self.config.reply, access_list(self.config)
        self.leases = Leases(self.store, self.clock)
        self.delivery = Delivery(
            self.leases,
            self.connections,
            self.clock,
            random,
            lambda: self.responder.habits,
            max_age=reply.max_age,
        )
        self.services = Services(
            self.store, self.leases, self.responder, self.delivery, access, reply, self.clock, random
        )
        self.router = ChatRouter(self.services, self.connections)
        self.scheduler = PostScheduler(self.config.posts, self.config.zone, self.services, self.router.wake)
        await self.router.resume()
        self.sweeping = asyncio.create_task(self.router.run_sweeps())
        if ready:
            await self.start_responder()

    async def start_responder(self) -> None:
        persona = open_persona(self.config.adapters_dir)
        name = await self.engine.load_adapter(persona.folder)
        self.responder.start(self.engine, LoadedAdapter(persona, name, persona.sampling(self.config.reply)))

    async def stop(self) -> None:
        """Ends as the daemon does; a second call does nothing."""
        if self.sweeping.done():
            return
        await cancel_tasks(self.sweeping)
        await self.scheduler.stop()
        await self.router.close(0)
        await self.resolve()
        await self.leases.close()
        self.store.close()

    async def restart(self) -> None:
        await self.stop()
        for platform in self.platforms.values():
            platform.hold = None
        await self.start()

    async def resolve(self) -> None:
        """Lets everything happen that needs no time to pass. The store does one thing after the other."""
        if self.store.is_shared:  # leases go by the server's clock, which does not stand still on a slow machine
            await self.leases.renew()
        for _ in range(15):
            await self.store.run(lambda connection: None)
            for _ in range(5):
                await asyncio.sleep(0)

    async def on_message(self, *messages: Incoming) -> None:
        for message in messages:
            await self.router.receive(message)
        await self.resolve()

    async def inbox_states(self) -> list[tuple[str, str | None]]:
        return await self.store.run(
            lambda connection: [
                (row.state, row.reason) for row in connection.execute(select(inbox).order_by(inbox.c.id))
            ]
        )

    async def inbox_rows(self) -> list[Any]:
        return await self.store.run(lambda connection: list(connection.execute(select(inbox).order_by(inbox.c.id))))

    async def bubbles(self) -> list[tuple[str, str]]:
        return await self.store.run(
            lambda connection: [
                (row.text, row.state) for row in connection.execute(select(outbox).order_by(outbox.c.id))
            ]
        )

    async def outbox_rows(self) -> list[Any]:
        return await self.store.run(lambda connection: list(connection.execute(select(outbox).order_by(outbox.c.id))))

    async def slot_rows(self) -> list[tuple[datetime, str]]:
        return await self.store.run(
            lambda connection: [(row.due, row.state) for row in connection.execute(select(slots).order_by(slots.c.due))]
        )
