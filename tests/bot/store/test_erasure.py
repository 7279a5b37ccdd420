"""Forgetting somebody in the bot's database: what goes, what stays, and that no bytes of it are left in its files."""

import asyncio
import stat
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from bot.chat.engine_supervisor import EngineSupervisor
from bot.store import Store, StoreInUse, inbox, outbox
from bot.store.forget_requests import Answer, ForgetRequests, request_erasure
from bot.store.personal_data import LiveMessages
from bot.store.schema import InboxState, NewMessage, chats
from bot.store.schema import inbox as inbox_table
from bot.store.schema import outbox as outbox_table
from doppel.config import Config
from doppel.errors import DoppelError, UserError
from doppel.personal_data import Account, Person, find_person
from doppel.transcript import Transcript, pseudonym
from tests.bot.harness import FakePlatform, Harness, config_in, incoming

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ANA, TOM = Account("telegram", "7"), Account("telegram", "8")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path, telegram={"allow": [7, 8, "-100"]}, reply={"debounce_seconds": 0})


def database(config: Config) -> Path:
    return config.root / "data" / "doppel.db"


class Filled:
    """Writes conversations into a database, as the daemon would."""

    def __init__(self, config: Config) -> None:
        self.store = Store(config.store_url, config.persona.name)
        self._events = 0

    async def receive(self, sender: str, text: str, *, group: bool = False, **answers: str | None) -> int:
        """A message, and what it answers (see `quote`); returns the row of its chat."""
        self._events += 1
        now = START + timedelta(seconds=self._events)
        message = NewMessage(
            platform="telegram",
            event_id=str(self._events),
            chat="-100" if group else sender,
            kind="group" if group else "dm",
            sender=sender,
            text=text,
            message_id=f"m{self._events}",
            mentions_bot=True,
            sent_at=now,
            **answers,
        )
        chat = await self.store.run(inbox.receive, self.store.persona, message, now)
        assert chat is not None
        return chat.id

    async def reply(self, chat_id: int, *texts: str, sent: bool = True) -> None:
        """Answers what is pending in a chat."""
        pending = await self.store.run(inbox.pending_messages, chat_id, 10)
        await self.store.run(
            outbox.add_turn, chat_id, "reply", texts, adapter="0001", now=START, answers_up_to=pending[-1].id
        )
        for bubble in await self.store.run(outbox.pending_bubbles, chat_id) if sent else ():
            await self.store.run(outbox.mark_sending, bubble, START)
            await self.store.run(outbox.mark_sent, bubble, f"p{bubble.id}", START)


async def fill(config: Config) -> None:
    """A direct chat with Ana and one with Tom, and a group of both."""
    filled = Filled(config)
    with closing(filled.store):
        await filled.reply(await filled.receive("7", "ana writes zebra"), "to ana zebra")
        await filled.reply(await filled.receive("8", "tom writes"), "to tom")
        group = await filled.receive("7", "ana asks the zebra group", group=True)
        await filled.reply(group, "zebra for ana", "second zebra")
        await filled.receive("8", "tom asks the group", group=True)
        await filled.reply(group, "group to tom")


def texts(config: Config) -> list[str]:
    """All texts in the database, the persona's and others'."""
    with closing(Store(config.store_url, config.persona.name)) as store:
        return asyncio.run(
            store.run(
                lambda connection: [
                    *connection.execute(select(inbox_table.c.text).order_by(inbox_table.c.id)).scalars(),
                    *connection.execute(select(outbox_table.c.text).order_by(outbox_table.c.id)).scalars(),
                ]
            )
        )


def left_in_files(config: Config, text: str) -> list[str]:
    """The database's files that contain a text anywhere in their bytes."""
    return [path.name for path in database(config).parent.iterdir() if text.encode() in path.read_bytes()]


def person(*accounts: Account, name: str = "7") -> Person:
    return Person(name=name, accounts=frozenset(accounts), names=frozenset({name}))


LEFT = ["tom writes", "tom asks the group", "to tom", "group to tom"]


def test_everything_of_them_goes_and_nothing_of_others(config: Config) -> None:
    asyncio.run(fill(config))
    assert left_in_files(config, "zebra")
    erased = LiveMessages(config).erase(person(ANA))
    assert erased.details == {"messages": 2, "bubbles": 3, "chats": 2}
    assert texts(config) == LEFT
    assert left_in_files(config, "zebra") == []
    assert any("telegram:7" in line and "block" in line for line in erased.lines)
    assert LiveMessages(config).erase(person(ANA)).records == 0


def test_what_is_exported_is_what_would_be_erased(config: Config) -> None:
    asyncio.run(fill(config))
    records = LiveMessages(config).export(person(ANA))
    assert [(record["by"], record["text"]) for record in records] == [
        ("7", "ana writes zebra"),
        ("persona", "to ana zebra"),
        ("7", "ana asks the zebra group"),
        ("persona", "zebra for ana"),
        ("persona", "second zebra"),
    ]
    assert records[0]["at"] == "2026-03-01T12:00:01+00:00"
    assert LiveMessages(config).erase(person(ANA)).records == len(records)
    assert LiveMessages(config).export(person(ANA)) == []


@pytest.mark.parametrize("name", ["7", "@7", "telegram:7", pseudonym("telegram", "7"), "Ana Maria"])
def test_somebody_who_only_writes_to_the_bot_by_whatever_name(config: Config, name: str, tmp_path: Path) -> None:
    asyncio.run(fill(config))
    people = [{"name": "Ana Maria", "accounts": ["telegram:7", "discord:70"]}]
    config = config_in(tmp_path, people=people)
    assert find_person(config, [LiveMessages(config)], name).accounts == {ANA}


def test_nobody_is_called_so_and_no_database_is_made(config: Config) -> None:
    store = LiveMessages(config)
    with pytest.raises(UserError, match="nobody: no such contact"):
        find_person(config, [store], "nobody")
    assert store.erase(person(ANA)).records == 0
    assert store.export(person(ANA)) == []
    assert not database(config).exists()


async def states(store: Store) -> list[tuple[str, str]]:
    return await store.run(
        lambda connection: [
            (row.text, row.state) for row in connection.execute(select(inbox_table).order_by(inbox_table.c.id))
        ]
    )


async def erase(store: Store, *accounts: Account) -> None:
    handler = ForgetRequests(store, no_chats, cleared, None)  # type: ignore[arg-type]
    await handler._erase(_request(*accounts))


def _request(*accounts: Account) -> Any:
    from bot.store.forget_requests import _Request

    return _Request("1", list(accounts))


async def no_chats(chat_ids: Sequence[int], seconds: float) -> None:
    """There is nobody to stop."""


async def cleared() -> bool:
    return True


@pytest.mark.parametrize("sent", [True, False])
async def test_others_whom_the_same_reply_answers(config: Config, sent: bool) -> None:
    """Nobody saw an unsent reply, so the others get another one."""
    filled = Filled(config)
    with closing(filled.store) as store:
        group = await filled.receive("7", "ana", group=True)
        await filled.receive("8", "tom", group=True)
        await filled.reply(group, "to both", sent=sent)
        await erase(store, ANA)
        assert await states(store) == [("tom", InboxState.ANSWERED if sent else InboxState.NEW)]
        await erase(store, TOM)  # the number of the turn that is gone is used again and means another one
        assert await states(store) == []


async def test_a_reply_that_was_never_sent_goes_too(config: Config) -> None:
    filled = Filled(config)
    with closing(filled.store) as store:
        group = await filled.receive("7", "ana", group=True)
        await filled.receive("8", "tom", group=True)
        await filled.reply(group, "ana and tom", sent=False)
        await store.run(outbox.drop_replies, group, outbox.OutboxError.SUPERSEDED, START)
        await filled.reply(group, "again, ana and tom")
        await erase(store, ANA)
    assert left_in_files(config, "ana") == []


async def test_replies_of_earlier_versions_name_only_the_last_message(config: Config) -> None:
    filled = Filled(config)
    with closing(filled.store) as store:
        group = await filled.receive("7", "ana", group=True)
        await filled.receive("8", "tom", group=True)
        await filled.reply(group, "to both")
        await filled.receive("8", "tom again", group=True)
        await filled.reply(group, "to tom")
        await store.run(lambda connection: connection.execute(update(inbox_table).values(turn=None)) and None)
        await erase(store, ANA)
        bubbles = await store.run(lambda connection: connection.execute(select(outbox_table.c.text)).scalars().all())
        assert bubbles == ["to tom"]


async def test_a_post_to_somebody_who_never_wrote(config: Config) -> None:
    filled = Filled(config)
    with closing(filled.store) as store:
        chat = await store.run(inbox.get_or_create_chat, "sample", "telegram", "7", now=START)
        await store.run(outbox.add_turn, chat.id, "post", ["hello"], adapter=None, now=START)
        await erase(store, ANA)
        assert await store.run(lambda connection: connection.execute(select(chats)).all()) == []


async def quoted(store: Store) -> list[str | None]:
    query = select(inbox_table.c.answers_text).order_by(inbox_table.c.id)
    return await store.run(lambda connection: list(connection.execute(query).scalars()))


async def fill_with_quotes(filled: Filled) -> None:
    """A group in which Ana wrote and Tom quotes, and Tom's direct chat with quotes from elsewhere."""
    group = await filled.receive("7", "ana asks zebra", group=True)
    await filled.reply(group, "zebra for ana")
    await filled.receive("8", "1", group=True, **quote("7", "ana asks zebra", "m1"))
    await filled.receive("8", "2", group=True, **quote(None, "zebra for", "p1"))
    await filled.receive("8", "3", group=True, **quote("9", "eve said zebra", "m0"))
    await filled.reply(group, "zebra for tom")
    await filled.receive("8", "4", group=True, **quote(None, "zebra for tom", "p2"))
    await filled.receive("8", "5", **quote("7", "ana elsewhere zebra", None))
    await filled.receive("8", "6", **quote(None, "zebra for ana", None))
    await filled.receive("8", "7", **quote("", "asks zebra", None))
    await filled.receive("8", "8", **quote("", "of somebody zebra", None))


def quote(sender: str | None, text: str, message_id: str | None) -> dict[str, str | None]:
    return {"answers_sender": sender, "answers_text": text, "answers_message_id": message_id}


async def test_what_others_quote_of_them_goes_and_the_messages_stay(config: Config) -> None:
    filled = Filled(config)
    with closing(filled.store) as store:
        await fill_with_quotes(filled)
        await erase(store, ANA)
        assert [text for text, _ in await states(store)] == list("12345678")
        assert await quoted(store) == [
            None,
            None,
            "eve said zebra",
            "zebra for tom",
            None,
            None,
            None,
            "of somebody zebra",
        ]
    assert left_in_files(config, "ana") == []


def test_quotes_are_exported_and_counted_as_what_is_erased(config: Config) -> None:
    async def fill() -> None:
        filled = Filled(config)
        with closing(filled.store):
            await fill_with_quotes(filled)

    asyncio.run(fill())
    live = LiveMessages(config)
    eve = Account("telegram", "9")
    assert [known.account for known in live.accounts()] == [ANA, TOM, eve]
    records = live.export(person(ANA))
    assert sorted((record["by"], record["text"]) for record in records if record["state"] == "quoted") == [
        ("", "asks zebra"),
        ("7", "ana asks zebra"),
        ("7", "ana elsewhere zebra"),
        ("persona", "zebra for"),
        ("persona", "zebra for ana"),
    ]
    erased = live.erase(person(ANA))
    assert erased.details == {"messages": 1, "bubbles": 1, "chats": 2, "quotes": 5}
    assert erased.records == len(records)
    assert any("5 messages of others" in line for line in erased.lines)
    erased = live.erase(person(eve, name="9"))
    assert erased.details == {"messages": 0, "bubbles": 0, "chats": 1, "quotes": 1}
    assert left_in_files(config, "eve said") == []
    assert live.export(person(eve, name="9")) == []


# While the daemon is running -----------------------------------------------------------------------------------------


@pytest.fixture
def harness(config: Config, tiny_transcript: Transcript) -> Harness:
    return Harness(config, tiny_transcript, FakePlatform())


def requests_of(harness: Harness, clear: Any = cleared) -> ForgetRequests:
    return ForgetRequests(harness.store, harness.router.drop, clear, harness.clock)


async def ask(harness: Harness, requests: ForgetRequests, *accounts: Account) -> Answer:
    """Asks as the command does, in a thread; the daemon looks each time when the command waits."""
    loop = asyncio.get_running_loop()

    def wait(_seconds: float) -> None:
        path = database(harness.config).with_name("doppel.db.forget.json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        asyncio.run_coroutine_threadsafe(requests.serve(), loop).result(20)

    return await asyncio.to_thread(request_erasure, database(harness.config), accounts, sleep=wait)


async def test_a_running_daemon_erases_and_drops_the_reply_in_progress(harness: Harness) -> None:
    await harness.start()
    harness.engine.turns = [["to tom"]]
    await harness.on_message(incoming(1, "tom writes", chat="8", sender="8"))
    await harness.clock.advance(5)
    harness.engine.gate.clear()
    await harness.on_message(incoming(2, "ana writes zebra"))
    await harness.clock.advance(1)
    assert len(harness.engine.prompts) == 2
    requests = requests_of(harness)
    assert await requests.serve() is False
    answer = await ask(harness, requests, ANA)
    assert (answer.erased.messages, answer.erased.chats) == (1, 1)
    assert (answer.is_cache_cleared, answer.warning, answer.error) == (True, None, None)
    assert harness.engine.cancelled == 1
    assert left_in_files(harness.config, "zebra") == []
    assert {path.name for path in database(harness.config).parent.iterdir() if "forget" in path.name} == {
        "doppel.db.forget.lock"
    }
    harness.engine.gate.set()
    harness.engine.turns = [["hello again"]]
    await harness.on_message(incoming(3, "who are you"))
    await harness.clock.advance(60)
    assert harness.platform.texts == ["to tom", "hello again"]
    assert "zebra" not in harness.engine.prompts[-1]
    await harness.stop()


async def test_the_command_says_what_the_daemon_could_not_do(harness: Harness) -> None:
    await harness.start()
    await harness.on_message(incoming(1, "ana writes"))

    async def cannot() -> bool:
        return False

    assert (await ask(harness, requests_of(harness, cannot), ANA)).is_cache_cleared is False

    async def fails() -> bool:
        raise DoppelError("the engine is closed")

    assert (await ask(harness, requests_of(harness, fails), ANA)).warning == "the engine is closed"
    await harness.stop()


async def test_the_store_is_found_in_use_and_read_all_the_same(harness: Harness) -> None:
    await harness.start()
    harness.engine.turns = [["to ana"]]
    await harness.on_message(incoming(1, "ana writes"))
    await harness.clock.advance(5)
    with pytest.raises(StoreInUse):
        Store(harness.config.store_url, "sample")
    live = LiveMessages(harness.config)
    assert [one.account for one in await asyncio.to_thread(live.accounts)] == [ANA]
    exported = await asyncio.to_thread(live.export, person(ANA))
    assert [record["text"] for record in exported] == ["ana writes", "to ana"]
    await harness.stop()


def test_a_daemon_that_does_not_answer(config: Config) -> None:
    asyncio.run(fill(config))
    with pytest.raises(UserError, match=r"does not answer; stop it, then run `doppel forget` again"):
        request_erasure(database(config), [ANA], sleep=lambda seconds: None)
    assert not database(config).with_name("doppel.db.forget.json").exists()


async def test_a_damaged_request_is_refused_and_removed(harness: Harness) -> None:
    await harness.start()
    path = database(harness.config).with_name("doppel.db.forget.json")
    path.write_text("{")
    with pytest.raises(DoppelError, match=r"doppel\.db\.forget\.json: cannot be read"):
        await requests_of(harness).serve()
    assert not path.exists()
    await harness.stop()


class CachingEngine:
    """Counts how often its cache was cleared."""

    cleared = 0

    async def clear_prefix_cache(self) -> None:
        self.cleared += 1


@pytest.mark.parametrize(("engine", "expected"), [(None, True), (object(), False), (CachingEngine(), True)])
async def test_the_cache_of_an_engine_that_has_one(config: Config, engine: Any, expected: bool) -> None:
    supervisor = EngineSupervisor(config, lambda config: engine, None, None)  # type: ignore[arg-type]
    supervisor._engine = engine
    assert await supervisor.clear_prefix_cache() is expected
    assert not isinstance(engine, CachingEngine) or engine.cleared == 1
