"""How long the daemon's reads take in a chat of a million messages, against one of a thousand.

    python benchmarks/store.py [--quick] [--json]

Two databases (SQLite, as the daemon opens them) with 100 other chats each and one long chat: half of its messages are
received, half are sent bubbles, and at its end some wait for a reply and a bubble waits to be sent. Each read is made
in turns on both, and its medians are compared: a read that finds its rows by index takes the same time on both.

- `prompt_context`, `pending_messages`, `pending_bubbles`: what each reply reads.
- `newest_message_ids`: what Discord asks after a reconnect.
- `unfinished_chats`: what is looked for every 30 s.
- `prompt_ms`: the read for a prompt as a conversation waits for it, with the way to the store's thread and back.
- `keep_ms`: the transactions in which `store.keep` deletes the older half of the long chat. Replies wait for one of
  them at most.

Prints one JSON object last.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, update

from bot.clock import SystemClock
from bot.store import Store, inbox, outbox
from bot.store.retention import Retention
from bot.store.schema import chats
from bot.store.schema import inbox as inbox_table
from bot.store.schema import outbox as outbox_table
from doppel.terminal import print_status

PERSONA = "sample"
OTHER_CHATS = 100
MESSAGES_OF_OTHERS = 20
SHORT, LONG, QUICK = 1_000, 1_000_000, 100_000
HISTORY = 40
"""The default of `reply.history`."""

WAITING = 3
CHUNK = 20_000
MAX_RATIO, MAX_PROMPT_MS, MAX_KEEP_MS = 2.0, 20.0, 50.0
"""The last one is half of what `benchmarks/daemon.py` allows the daemon to add to a reply."""

START = datetime(2020, 1, 1, tzinfo=UTC)
TEXT = "as long as messages in a chat usually are"

Read = Callable[[Connection, int], Any]
READS: dict[str, Read] = {
    "prompt_context": lambda connection, chat: inbox.prompt_context(connection, chat, HISTORY),
    "pending_messages": lambda connection, chat: inbox.pending_messages(connection, chat, HISTORY),
    "pending_bubbles": outbox.pending_bubbles,
    "newest_message_ids": lambda connection, _: inbox.newest_message_ids(connection, PERSONA, "telegram"),
    "unfinished_chats": lambda connection, _: inbox.unfinished_chats(connection, PERSONA),
}


async def fill(store: Store, messages: int) -> int:
    """Fills a database; returns the row of the long chat."""
    turn = 1
    for number in range(OTHER_CHATS):
        _, turn = await add_chat(store, f"other {number}", MESSAGES_OF_OTHERS, turn)
    chat, turn = await add_chat(store, "long", messages, turn)
    await store.run(add_unfinished, chat, messages, turn)
    return chat


async def add_chat(store: Store, name: str, messages: int, turn: int) -> tuple[int, int]:
    """Adds a chat of finished messages; returns its row, and the number of the next turn."""
    chat = (await store.run(inbox.get_or_create_chat, PERSONA, "telegram", name, "dm", now=START)).id
    for start in range(1, messages + 1, CHUNK):
        positions = range(start, min(start + CHUNK, messages + 1))
        received = [received_row(chat, name, position) for position in positions if position % 2]
        sent = [sent_row(chat, turn + position // 2, position) for position in positions if not position % 2]
        await store.run(add_rows, received, sent)
    await store.run(set_last_position, chat, messages)
    return chat, turn + messages // 2 + 1


def add_rows(connection: Connection, received: list[dict[str, Any]], sent: list[dict[str, Any]]) -> None:
    connection.execute(insert(inbox_table), received)
    connection.execute(insert(outbox_table), sent)


def add_unfinished(connection: Connection, chat: int, position: int, turn: int) -> None:
    """Messages that wait for a reply, and a bubble that waits to be sent."""
    for number in range(position + 1, position + 1 + WAITING):
        connection.execute(insert(inbox_table), {**received_row(chat, "long", number), "state": "new"})
    set_last_position(connection, chat, position + WAITING)
    waiting = {"state": "pending", "chat_position": None, "message_id": None}
    connection.execute(insert(outbox_table), {**sent_row(chat, turn, 0), **waiting})


def set_last_position(connection: Connection, chat: int, position: int) -> None:
    connection.execute(update(chats).where(chats.c.id == chat).values(last_position=position))


def received_row(chat: int, name: str, position: int) -> dict[str, Any]:
    at = START + timedelta(seconds=position)
    return {
        **{"chat_id": chat, "platform": "telegram", "event_id": f"{name}-{position}", "message_id": str(position)},
        **{"sender": name, "text": TEXT, "addressed": True, "sent_at": at, "received_at": at, "state": "answered"},
        **{"attempts": 0, "chat_position": position},
    }


def sent_row(chat: int, turn: int, position: int) -> dict[str, Any]:
    at = START + timedelta(seconds=position)
    return {
        **{"chat_id": chat, "kind": "reply", "turn": turn, "position": 0, "text": TEXT, "state": "sent"},
        **{"adapter": "0001", "attempts": 1, "message_id": str(position), "created_at": at, "changed_at": at},
        "chat_position": position,
    }


def timed(connection: Connection, read: Read, chat: int) -> float:
    """Milliseconds of one read."""
    began = time.perf_counter()
    read(connection, chat)
    return 1000 * (time.perf_counter() - began)


async def waited_for(store: Store, chat: int) -> float:
    """Milliseconds until a conversation has what its prompt is made of."""
    began = time.perf_counter()
    await store.run(inbox.prompt_context, chat, HISTORY)
    return 1000 * (time.perf_counter() - began)


async def transactions_of_keep(store: Store, messages: int) -> list[float]:
    """Deletes the older half of the messages; the milliseconds that each transaction took."""
    times: list[float] = []
    run = store.run

    async def run_timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = await run(*arguments)
        times.append(1000 * (time.perf_counter() - began))
        return result

    store.run = run_timed  # type: ignore[method-assign]
    now = datetime.now(UTC)
    await Retention(store, now - (START + timedelta(seconds=messages / 2)), SystemClock()).delete_old()
    store.run = run  # type: ignore[method-assign]
    return times


async def measure(messages: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        short, long = (Store(f"sqlite:///{Path(folder) / name}.db", PERSONA) for name in ("short", "long"))
        with closing(short), closing(long):
            began = time.perf_counter()
            sides = {"short": (short, await fill(short, SHORT)), "long": (long, await fill(long, messages))}
            print_status(f"{messages:,} messages stored in {time.perf_counter() - began:.0f} s")
            times: dict[str, dict[str, list[float]]] = {name: {"short": [], "long": []} for name in READS}
            prompts: list[float] = []
            for number in range(rounds + 1):
                for name, read in READS.items():
                    for side, (store, chat) in sides.items():
                        milliseconds = await store.run(timed, read, chat)
                        if number:  # the first round fills caches
                            times[name][side].append(milliseconds)
                prompts.append(await waited_for(*sides["long"]))
            keep = await transactions_of_keep(long, messages)
            print_status(f"store.keep: {len(keep):,} transactions, {sum(keep) / 1000:.1f} s")
    medians = {
        name: {side: round(statistics.median(values), 4) for side, values in by_side.items()}
        for name, by_side in times.items()
    }
    for name, by_side in medians.items():
        print_status(f"{name}: {by_side['short']:.3f} ms, in the long chat {by_side['long']:.3f} ms")
    return {
        "messages": messages,
        "ms": medians,
        "prompt_ms": round(statistics.median(prompts), 3),
        "keep_ms": round(statistics.median(keep), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} messages instead of {LONG:,}")
    parser.add_argument(
        "--json", action="store_true", help="only the JSON object on stdout (it is always the last line)"
    )
    arguments = parser.parse_args()
    result = asyncio.run(measure(QUICK if arguments.quick else LONG, 50 if arguments.quick else 300))
    checks = []
    for name, medians in result["ms"].items():
        ratio = round(medians["long"] / medians["short"], 2)
        goal = f"<= {MAX_RATIO:g}"
        checks.append({"name": f"{name}, long chat over short", "value": ratio, "goal": goal, "ok": ratio <= MAX_RATIO})
    limits = {"milliseconds to read a prompt": ("prompt_ms", MAX_PROMPT_MS)}
    limits["milliseconds of a deleting transaction"] = ("keep_ms", MAX_KEEP_MS)
    for name, (key, limit) in limits.items():
        checks.append({"name": name, "value": result[key], "goal": f"<= {limit:g}", "ok": result[key] <= limit})
    print(json.dumps({**result, "checks": checks}))


if __name__ == "__main__":
    sys.exit(main())
