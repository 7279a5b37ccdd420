"""Who is the owner: what the exports say, what `persona.me` says, and a clear question when neither does."""

import re
from collections import Counter
from collections.abc import Iterable

import msgspec

from doppel.errors import UserError
from doppel.i18n import tr
from doppel.message import Message

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


class Owner:
    """Collects who wrote what, then knows which accounts are the owner's.

    Args:
        me: `persona.me`: account ids or names, compared without case and without a leading `@`.
    """

    def __init__(self, me: Iterable[str]) -> None:
        self._me = {_plain(name) for name in me}
        self._writers: dict[tuple[int, str, str, bool | None], Writer] = {}
        self._pairs: dict[tuple[int, str, str], set[tuple[str, bool | None]]] = {}
        self.accounts: set[tuple[str, str]] = set()
        """(platform, account) of the owner, once `settle` was called."""

    def saw(self, source: int, message: Message) -> None:
        """Counts a message for its writer."""
        key = (source, message.platform, message.sender, message.is_owner)
        writer = self._writers.get(key)
        if writer is None:
            writer = Writer(source, message.platform, message.sender, message.sender_name, message.is_owner)
            self._writers[key] = writer
        writer.messages += 1
        if message.kind == "dm" and message.mark != "service":
            self._pairs.setdefault((source, message.platform, message.chat), set()).add(key[2:])

    def settle(self, sources: list[str]) -> None:
        """Decides. Raises UserError naming the archive in `sources` whose owner cannot be told."""
        writers = self._writers.values()
        self.accounts = {(one.platform, one.account) for one in writers if one.verdict is True}
        self.accounts |= {(one.platform, one.account) for one in writers if one.verdict is None and self._is_me(one)}
        self.accounts |= set(self._left_over())
        for number, source in enumerate(sources):
            mine = [one for one in writers if one.source == number]
            # An archive that tells its owner may hold none of their messages; that is no reason to ask.
            if any(one.verdict is None for one in mine) and not any(self.wrote(one) for one in mine):
                raise UserError(self._question(source, mine))

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
        return _plain(writer.account) in self._me or _plain(writer.name) in self._me

    def _left_over(self) -> Iterable[tuple[str, str]]:
        """In a chat of two of whom one is known to be the contact, the other is the owner."""
        for (_, platform, _), people in self._pairs.items():
            unknown = [account for account, verdict in people if verdict is None]
            if len(people) == 2 and len(unknown) == 1 and any(verdict is False for _, verdict in people):
                yield platform, unknown[0]

    def _question(self, source: str, writers: list[Writer]) -> str:
        counts: Counter[tuple[str, str]] = Counter()
        for one in writers:
            counts[(one.name, one.account)] += one.messages
        top = counts.most_common(_ASKED)
        candidates = ", ".join(
            tr(
                "{name} ({account}, {count} messages)",
                name=" ".join(name.split()) or "?",
                account=account,
                count=f"{count:,}",
            )
            for (name, account), count in top
        )
        name, account = top[0][0]
        example = name if _EASY.fullmatch(name) else account
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


def _plain(name: str) -> str:
    return name.strip().removeprefix("@").casefold()
