"""Messages come back from the temporary file as they went in, in order of time."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from tests.training.messages import message
from training.dataset.message_store import MessageStore, RecordFile


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 20), st.text(max_size=9))))
def test_every_message_comes_back_in_order(rows: list[tuple[str, int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = MessageStore(Path(folder) / "store")
        sent = [message(number, text, chat=chat, at=at) for number, (chat, at, text) in enumerate(rows)]
        for number, item in enumerate(sent):
            store.add(number % 3, item)
        back = {chat.chat: [item for _, item in chat.messages()] for chat in store.chats()}
        for chat in {item.chat for item in sent}:
            expected = sorted((item for item in sent if item.chat == chat), key=lambda item: item.sent_at)
            assert list(map(astuple, back[chat])) == list(map(astuple, expected))
        store.close()


def test_public_messages_are_a_chat_of_their_own(tmp_path: Path) -> None:
    store = MessageStore(tmp_path / "store")
    for number, kind in enumerate(("dm", "post", "reply", "group", "quote")):
        store.add(0, message(number, kind=kind))
    assert [(chat.is_public, len(chat.times())) for chat in store.chats()] == [(False, 2), (True, 3)]
    store.close()


def test_records_beyond_four_gibibytes_come_back(tmp_path: Path) -> None:
    records = RecordFile(tmp_path / "records")
    records.add_encoded(b"first")
    records._file.seek(beyond := 5 << 30)  # a hole takes no room on the disk
    records.position = beyond
    assert records.add_encoded(b"last") == 4
    assert (records.read(0, 5), records.read(beyond, 4)) == (b"first", b"last")
    records.close()
