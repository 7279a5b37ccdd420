"""Conversations of which the archives have the owner's side only.

Notes to oneself, or an export with nothing but one's own words, look like conversations that the owner begins and
nobody answers. They would teach how to open a conversation, and turns of a hundred bubbles. So their messages become
posts of one message each: they teach style and posts, and nothing about conversations.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from training.archives.message import Mark, Message
from training.dataset.joined_chats import JoinedChats
from training.dataset.message_store import StoredChat
from training.dataset.sessions import SessionMessage

MIN_MONOLOGUE = 50
"""So many messages to somebody who never wrote are no attempts to begin a conversation, but notes to oneself."""

_MAX_WRITERS = 8
"""Writers remembered of each chat; with more of them it has another side."""

_PUBLIC = ("post", "reply", "quote")

IsMine = Callable[[str, str, bool | None, int], bool]
"""Whether a writer is the owner, given platform, account, what the export says, and the number of the archive."""

_NOTHING_JOINED = JoinedChats()


class ChatWriters:
    """Who wrote in each conversation, also what was left out later; for finding those without another side."""

    def __init__(self) -> None:
        self._writers: dict[tuple[int, str, str], set[tuple[str, bool | None]]] = {}
        self._own_only_sources: set[int] = set()
        self._monologues: set[tuple[str, str]] = set()

    def add(self, source: int, message: Message) -> None:
        """Takes note of the writer of a message of archive number `source`."""
        if message.kind in _PUBLIC or message.mark in (Mark.SERVICE, Mark.BOT):
            return
        writers = self._writers.setdefault((source, message.platform, message.chat), set())
        if len(writers) < _MAX_WRITERS:
            writers.add((message.sender, message.is_owner))

    def resolve(self, is_mine: IsMine, joined: JoinedChats = _NOTHING_JOINED) -> None:
        """Finds the conversations, and the archives of several, in which nobody but the owner wrote.

        Args:
            is_mine: whether a writer is the owner.
            joined: what chats and accounts are called after chats were joined.
        """
        two_sided_chats, chats_of_source = set[tuple[str, str]](), dict[int, int]()
        two_sided_sources = set[int]()
        for (source, platform, chat), writers in self._writers.items():
            chats_of_source[source] = chats_of_source.get(source, 0) + 1
            if not all(
                is_mine(*joined.account(source, account), joined.owner_flag(source, account, is_owner), source)
                for account, is_owner in (((platform, name), flag) for name, flag in writers)
            ):
                two_sided_chats.add(joined.chat(source, platform, chat))
                two_sided_sources.add(source)
        self._monologues = {joined.chat(*place) for place in self._writers} - two_sided_chats
        self._own_only_sources = {source for source, count in chats_of_source.items() if count > 1} - two_sided_sources
        self._writers.clear()

    def posts_instead(
        self, sessions: Iterable[list[SessionMessage]], chat: StoredChat, is_mine: IsMine
    ) -> Iterator[list[SessionMessage]]:
        """The sessions of a conversation, with those that lack the other side as posts of one message each.

        Where another export has the other side, it is not lacking from that one's first message to its last.

        Args:
            sessions: of the chat.
            chat: a conversation, not public posts.
            is_mine: whether a writer is the owner.
        """
        is_monologue = (chat.platform, chat.chat) in self._monologues and len(chat) >= MIN_MONOLOGUE

        def is_partial(source: int, message: Message) -> bool:
            return is_monologue or message.is_one_sided or source in self._own_only_sources

        if not (is_monologue or chat.has_one_sided or self._own_only_sources & chat.source_numbers()):
            yield from sessions
            return
        first_complete = last_complete = None
        for source, message in chat.messages():
            is_own = is_mine(message.platform, message.sender, message.is_owner, source)
            if not (is_own and is_partial(source, message)):
                first_complete, last_complete = first_complete or message.sent_at, message.sent_at
        for session in sessions:
            start, end = session[0].message.sent_at, session[-1].message.sent_at
            is_covered = first_complete and last_complete and first_complete <= end and start <= last_complete
            if is_covered or not all(item.is_mine and is_partial(item.source, item.message) for item in session):
                yield session
            else:
                yield from ([_as_post(item)] for item in session)


def lacks_context(session: Sequence[SessionMessage]) -> bool:
    """Whether a session is the owner's side alone: a one-sided conversation, or replies without what they answer."""
    first = session[0].message
    is_partial = first.kind in ("reply", "quote") or (first.kind == "post" and first.is_one_sided)
    return is_partial and all(item.is_mine for item in session)


def _as_post(item: SessionMessage) -> SessionMessage:
    message = msgspec.structs.replace(item.message, kind="post", reply_to=None, is_one_sided=True)
    return msgspec.structs.replace(item, message=message)
