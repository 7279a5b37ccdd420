"""The benchmark of the store: that it measures every read, and what is deleted is the older half."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path

from benchmarks.store import HISTORY, PERSONA, READS, START, WAITING, fill, measure, transactions_of_keep
from bot.store import Store, inbox, outbox


async def test_every_read_is_measured_on_both_sides() -> None:
    result = await measure(messages=1500, rounds=2)
    assert set(result["ms"]) == set(READS)
    assert all(set(medians) == {"short", "long"} for medians in result["ms"].values())


async def test_the_chat_is_as_a_daemon_would_leave_it(tmp_path: Path) -> None:
    with closing(Store(f"sqlite:///{tmp_path / 'doppel.db'}", PERSONA)) as store:
        chat = await fill(store, 500)
        history, pending = await store.run(inbox.prompt_context, chat, HISTORY)
        assert len(pending) == WAITING
        assert len(history) + len(pending) > 0.7 * HISTORY
        assert await store.run(outbox.pending_bubbles, chat)
        assert await store.run(inbox.newest_message_ids, PERSONA, "telegram") is not None
        await transactions_of_keep(store, 500)
        left = await store.run(inbox.visible_messages, PERSONA, "telegram", "long", 1000)
        assert 200 <= len(left) <= 310
        assert min(message.at for message in left) > START + timedelta(seconds=248)
