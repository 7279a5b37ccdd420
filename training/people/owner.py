"""Who is the owner: what the exports say, what `persona.me` says, and a clear question when neither does."""

import re
from collections import Counter
from collections.abc import Iterable

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from training.archives.message import Message
from training.people.contacts import called, plain

_ASKED = 5
_EASY = re.compile(r"\w[\w .\-]*")
"""Names that need no thought between the quotes of a YAML list."""


class Writer(msgspec.Struct):
    """One account as seen while reading."""

    source: int
    platform: str
    account: str
    name: str
    verdict: bool | None
    messages: int = 0
    names: set[str] = msgspec.field(default_factory=set)
    """What the account was called besides `name`."""
    chats: set[str] = msgspec.field(default_factory=set)
    """Where it wrote, if nobody says whose it is."""


class Candidate(msgspec.Struct, kw_only=True):
    """One account that may be the owner's, over all archives whose owner cannot be told."""

    platform: str
    account: str
    name: str
    messages: int = 0
    chats: int = 0


class UnknownOwner(UserError):
    """Nobody says who the owner is; `candidates` are all who may be, the likeliest first."""

    def __init__(self, text: str, candidates: list[Candidate]) -> None:
        super().__init__(text)
        self.candidates = candidates


class Owner:
    """Collects who wrote what, then knows which accounts are the owner's.

    Args:
        me: `persona.me`: account ids or names, with the platform before a colon or not; compared without case and
            without a leading `@`.
    """

    def __init__(self, me: Iterable[str]) -> None:
        self._me = {plain(name) for name in me}
        self._writers: dict[tuple[int, str, str, bool | None], Writer] = {}
        self._pairs: dict[tuple[int, str, str], set[tuple[str, bool | None]]] = {}
        self.accounts: set[tuple[str, str]] = set()
        """(platform, account) of the owner, once `settle` was called."""
        self.absent: dict[str, list[str]] = {}
        """Archives in which nobody writes who may be the owner, and the names of those who do, after `settle`."""

    def saw(self, source: int, message: Message) -> None:
        """Counts a message for its writer."""
        self.writer_of(source, message).messages += 1

    def writer_of(self, source: int, message: Message) -> Writer:
        """Takes note of who wrote a message, where and under what name, and leaves it to the caller to count it.

        Messages that differ in nothing else than id, time, text and what they answer have the same writer.
        """
        key = (source, message.platform, message.sender, message.is_owner)
        writer = self._writers.get(key)
        if writer is None:
            writer = Writer(source, message.platform, message.sender, message.sender_name, message.is_owner)
            self._writers[key] = writer
        elif message.sender_name != writer.name:
            writer.names.add(message.sender_name)
        if message.is_owner is None:
            writer.chats.add(message.chat)
        if message.kind == "dm" and message.mark != "service":
            self._pairs.setdefault((source, message.platform, message.chat), set()).add(key[2:])
        return writer

    def settle(self, sources: list[str]) -> None:
        """Decides. Raises UnknownOwner naming the first archive in `sources` whose owner cannot be told.

        Where `persona.me` names somebody on a platform, an archive of it without them is one in which they only read,
        as a request that they never answered: that is told (`absent`), and is no reason to stop.
        """
        writers = self._writers.values()
        self.accounts = {(one.platform, one.account) for one in writers if one.verdict is True}
        named = {(one.platform, one.account) for one in writers if one.verdict is None and self._is_me(one)}
        self.accounts |= named
        self.accounts |= set(self._left_over())
        asked: list[tuple[str, list[Writer]]] = []
        platforms = {platform for platform, _ in named}
        by_source: dict[int, list[Writer]] = {}
        for one in writers:
            by_source.setdefault(one.source, []).append(one)
        for number, source in enumerate(sources):
            there = by_source.get(number, [])
            unknown = [one for one in there if one.verdict is None]
            # An archive that tells its owner may hold none of their messages; that is no reason to ask.
            if not unknown or any(self.wrote(one) for one in there):
                continue
            if all(one.platform in platforms for one in unknown):
                self.absent[source] = sorted({one.name or one.account for one in unknown})
            else:
                asked.append((source, unknown))
        if not asked:
            return
        source, first = asked[0]
        candidates = _candidates([one for _, unknown in asked for one in unknown])
        firsts = {(one.platform, one.account) for one in first}
        likely = [one for one in candidates if (one.platform, one.account) in firsts]
        raise UnknownOwner(self._question(source, likely), candidates)

    def wrote(self, writer: Writer) -> bool:
        """Whether this writer is the owner."""
        return self.is_mine(writer.platform, writer.account, writer.verdict)

    def is_mine(self, platform: str, account: str, verdict: bool | None) -> bool:
        """Whether a message of this account is the owner's; `verdict` is what its export says."""
        return (platform, account) in self.accounts if verdict is None else verdict

    @property
    def messages(self) -> int:
        """How many messages of the owner were read."""
        return sum(one.messages for one in self._writers.values() if self.wrote(one))

    @property
    def names(self) -> list[str]:
        """The owner's accounts, for people."""
        counts: Counter[str] = Counter()
        for one in self._writers.values():
            if self.wrote(one):
                counts[f"{one.platform}: {one.name or one.account}"] += one.messages
        return [name for name, _ in counts.most_common()]

    def _is_me(self, writer: Writer) -> bool:
        return any(
            not self._me.isdisjoint(called(writer.platform, writer.account, name))
            for name in (writer.name, *writer.names)
        )

    def _left_over(self) -> Iterable[tuple[str, str]]:
        """In a chat of two of whom one is known to be the contact, the other is the owner."""
        for (_, platform, _), people in self._pairs.items():
            unknown = [account for account, verdict in people if verdict is None]
            if len(people) == 2 and len(unknown) == 1 and any(verdict is False for _, verdict in people):
                yield platform, unknown[0]

    def _question(self, source: str, likely: list[Candidate]) -> str:
        candidates = ", ".join(
            tr(
                "{name} ({account}, {count} messages)",
                name=" ".join(one.name.split()) or "?",
                account=one.account,
                count=f"{one.messages:,}",
            )
            for one in likely[:_ASKED]
        )
        first = likely[0]
        is_clear = _EASY.fullmatch(first.name) and [plain(one.name) for one in likely].count(plain(first.name)) == 1
        example = first.name if is_clear else first.account
        if self._me:
            return tr(
                "{source}: nobody called {me} writes there; write one of these into config.yaml as "
                '`persona: {{me: ["{example}"]}}`: {candidates}',
                source=source,
                me=", ".join(sorted(self._me)),
                example=example,
                candidates=candidates,
            )
        return tr(
            "{source}: does not say which messages are yours; write yourself into config.yaml, for example "
            '`persona: {{me: ["{example}"]}}`; who writes there: {candidates}',
            source=source,
            example=example,
            candidates=candidates,
        )


def _candidates(writers: list[Writer]) -> list[Candidate]:
    """Those who wrote in most chats first, as the owner writes in all of them; then by messages."""
    found: dict[tuple[str, str], Candidate] = {}
    chats: dict[tuple[str, str], set[tuple[int, str]]] = {}
    for one in writers:
        key = (one.platform, one.account)
        candidate = found.setdefault(key, Candidate(platform=one.platform, account=one.account, name=one.name))
        candidate.messages += one.messages
        chats.setdefault(key, set()).update((one.source, chat) for chat in one.chats)
    for key, candidate in found.items():
        candidate.chats = len(chats[key])
    return sorted(found.values(), key=lambda one: (-one.chats, -one.messages, one.platform, one.account))
