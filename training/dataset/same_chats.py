"""Decides which stored chats are the same conversation, whatever the archives call it.

Chats are the same if the service's ids say so, or if what they contain does: nearly all that both could have, at the
same times, from both sides, in words that nobody says by chance. Chats that only resemble each other stay apart, and so
do two chats of one archive, and two of one name that have nothing in common.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.dataset.message_store import StoredChat
from training.dataset.same_messages import MAX_SHIFT, Fit, Places, fit, same_messages
from training.dataset.timeline import MIN_DISTINCTIVE_BITS, Account, ChatCopy, Timeline, concatenated, read_copies

_FAMILIES = {"hangouts": "google-chat"}
"""Platforms whose chats another one has taken over."""

_SERVICE_CHATS = {
    "telegram": re.compile(r"(?P<shape>user|chat|channel)\d+(?:/\d+)?"),
    "discord": re.compile(r"\d{15,20}"),
    "slack": re.compile(r"[CDG][A-Z0-9]{6,}"),
    "matrix": re.compile(r"![^:]+:.+"),
    "wechat": re.compile(r"wxid_\w+|\d+@chatroom"),
    "qq": re.compile(r"\d{5,11}"),
    "signal": re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|group [0-9a-f]{16}"),
    "instagram": re.compile(r".*_\d{5,}"),
    "messenger": re.compile(r".*_\d{5,}"),
    "google-chat": re.compile(r"(?:DM|Space) \S+"),
}
"""Ids that a service gives to a chat. Elsewhere exports name a chat as the person does who exported it."""
_NAMED = frozenset(
    ("whatsapp", "line", "kakaotalk", "imessage", "signal", "qq", "wechat", "discord", "matrix", "slack", "messenger")
) | frozenset(("instagram", "google-chat", "table"))
"""Platforms where a chat may be called by a name only, which another chat may have, too."""
_NAMED_BY_CLIENTS = frozenset(("irc",))
"""Platforms where every program calls a chat differently, but each program always the same."""
_THREAD = re.compile(r".*_(\d{5,})/?")
"""Meta's ids of conversations end in a number, behind a title that changes."""
_SERVICE_ACCOUNTS = {
    "telegram": re.compile(r"(?:channel)?\d+"),
    "discord": re.compile(r"\d{15,20}"),
    "slack": re.compile(r"[UW][A-Z0-9]{6,}"),
    "matrix": re.compile(r"@[^:]+:.+"),
    "qq": re.compile(r"\d{5,11}"),
    "wechat": re.compile(r"wxid_\w+"),
    "signal": re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}"),
    "google-chat": re.compile(r"\S+@\S+"),
    "hangouts": re.compile(r"\d{15,}"),
}

_MAX_COPIES_OF_TEXT = 12
"""A text in more chats than this is a chain letter, and no evidence."""
_MIN_CANDIDATE_BITS = 8
_MIN_SHARED_TEXTS = 3
_MIN_BITS, _MIN_SHIFTED_BITS = 40.0, 60.0
_MIN_DISTINCTIVE = 3
_MIN_SIDE_BITS = 8.0
_MIN_COVERED, _MIN_COVERED_OF_LONGER = 0.75, 0.3
_MAX_CONTRADICTIONS = 0.1
_MIN_TO_DIFFER = 3
"""So many messages without a counterpart show that two chats of one name are two."""
_MAX_COVERED_TO_DIFFER = 0.2
_STEP = 900.0
_MAX_STEPS = 64
"""More than the largest shift between two clocks, in steps."""


class SameChat(msgspec.Struct):
    """The copies of one conversation, the fullest first."""

    copies: list[ChatCopy]

    @property
    def stored(self) -> list[StoredChat]:
        """The stored chats that it consists of, or of parts of which."""
        return list(dict.fromkeys(copy.chat for copy in self.copies))


def find_same_chats(chats: Sequence[StoredChat]) -> list[SameChat]:
    """Groups the copies of chats by conversation. Chats of a platform of which there is one archive are left out."""
    families: dict[str, list[StoredChat]] = {}
    for chat in chats:
        families.setdefault(_FAMILIES.get(chat.platform, chat.platform), []).append(chat)
    return [
        same
        for family in families.values()
        if len(set().union(*(chat.source_numbers() for chat in family))) > 1
        for same in _Family(family).same_chats()
    ]


def is_service_account(account: Account) -> bool:
    """Whether this is an id by which a service knows one person."""
    pattern = _SERVICE_ACCOUNTS.get(account[0])
    return pattern is not None and pattern.fullmatch(account[1]) is not None


def is_service_chat(platform: str, chat: str) -> bool:
    """Whether this is an id by which the service knows one chat."""
    pattern = _SERVICE_CHATS.get(platform)
    return platform not in _NAMED if pattern is None else pattern.fullmatch(chat) is not None


class _Evidence(msgspec.Struct, frozen=True):
    """What two copies have in common.

    Attributes:
        bits: how much the common texts tell, all together.
        distinctive: how many of them are distinctive.
        sides: how much those of each writer tell.
        matched: messages that both have.
        possible: messages of the shorter one that both could have.
        possible_longer: the same of the longer one.
        global_ids: common ids that no other message of the service has.
        is_contradicted: whether writers do not correspond.
        shift: seconds between the two clocks.
    """

    bits: float
    distinctive: int
    sides: tuple[float, ...]
    matched: int
    possible: int
    possible_longer: int
    global_ids: int
    is_contradicted: bool
    shift: float

    @property
    def shows_one_chat(self) -> bool:
        """Whether this cannot be chance."""
        if self.is_contradicted or not self.possible:
            return False
        if self.global_ids:
            return True
        return (
            self.bits >= (_MIN_SHIFTED_BITS if self.shift else _MIN_BITS)
            and self.distinctive >= _MIN_DISTINCTIVE
            and sum(side >= _MIN_SIDE_BITS for side in self.sides) > 1
            and self.matched >= _MIN_COVERED * self.possible
            and self.matched >= _MIN_COVERED_OF_LONGER * self.possible_longer
        )

    @property
    def shows_two_chats(self) -> bool:
        """Whether both have messages of the same time, and nearly none in common."""
        return self.possible >= _MIN_TO_DIFFER and self.matched <= _MAX_COVERED_TO_DIFFER * self.possible


class _Family:
    """The chats of one service."""

    def __init__(self, chats: Sequence[StoredChat]) -> None:
        self._copies: list[ChatCopy] = []
        self._of_chat: dict[str | StoredChat, list[int]] = {}
        """The copies of every chat, by what all archives call it."""
        for chat in chats:
            key: str | StoredChat = chat
            if chat.platform in ("instagram", "messenger") and (match := _THREAD.fullmatch(chat.chat)):
                key = match[1]
            for copy in _chained(read_copies(chat), is_reliable=is_service_chat(chat.platform, chat.chat)):
                self._of_chat.setdefault(key, []).append(len(self._copies))
                self._copies.append(copy)
        self._spread: dict[int, int] = {}
        """In how many copies a text occurs, if in more than two."""
        self._group = list(range(len(self._copies)))
        self._sources = [set(copy.sources) for copy in self._copies]

    def same_chats(self) -> list[SameChat]:
        """All conversations."""
        named_alike: list[tuple[int, int]] = []
        for places in self._of_chat.values():
            first = self._copies[places[0]].chat
            if is_service_chat(first.platform, first.chat):
                for place in places[1:]:
                    if not self._have_other_people(places[0], place):
                        self._join(places[0], place)
            else:
                named_alike += combinations(places, 2)
        evidence = []
        for a, b in self._candidates():
            found = self._compare(a, b)
            if found.shows_one_chat:
                evidence.append((found.global_ids, found.bits, a, b))
        for _, _, a, b in sorted(evidence, key=lambda item: (-item[0], -item[1], item[2:])):
            self._join(a, b)
        for a, b in named_alike:
            if self._root(a) != self._root(b) and not self._are_different(a, b):
                self._join(a, b)
        groups: dict[int, list[ChatCopy]] = {}
        for place, copy in enumerate(self._copies):
            groups.setdefault(self._root(place), []).append(copy)
        return [SameChat(sorted(copies, key=lambda copy: copy.fullness, reverse=True)) for copies in groups.values()]

    def _root(self, place: int) -> int:
        while self._group[place] != place:
            self._group[place] = self._group[self._group[place]]
            place = self._group[place]
        return place

    def _join(self, a: int, b: int) -> None:
        """Puts two copies into one group, unless two chats of one archive would be in it."""
        a, b = sorted((self._root(a), self._root(b)))
        if a != b and self._sources[a].isdisjoint(self._sources[b]):
            self._group[b] = a
            self._sources[a] |= self._sources[b]

    def _have_other_people(self, a: int, b: int) -> bool:
        """Whether two private chats with one person, in the archives of two people, only have the same id."""
        first, second = self._copies[a], self._copies[b]
        if first.chat.platform != "telegram" or first.has_group or second.has_group:
            return False
        return len({*first.timeline.accounts, *second.timeline.accounts}) > 2

    def _may_be_same(self, a: int, b: int) -> bool:
        first, second = self._copies[a], self._copies[b]
        if first.chat is second.chat or not self._sources[a].isdisjoint(self._sources[b]):
            return False
        platform, chats = first.chat.platform, (first.chat.chat, second.chat.chat)
        if platform in _NAMED_BY_CLIENTS:
            return True
        if platform != second.chat.platform or not all(is_service_chat(platform, chat) for chat in chats):
            return True
        # Both parties of a private chat of Telegram's name it after the other one; a group becomes a supergroup.
        shapes = [_SERVICE_CHATS["telegram"].fullmatch(chat) for chat in chats] if platform == "telegram" else []
        names = {shape["shape"] for shape in shapes if shape}
        return names in ({"user"}, {"chat", "channel"})

    def _compare(self, a: int, b: int) -> _Evidence:
        first, second = self._copies[a], self._copies[b]
        how = fit(first.timeline, second.timeline)
        return self._evidence(first, second, how, *same_messages(first.timeline, second.timeline, how))

    def _evidence(self, first: ChatCopy, second: ChatCopy, how: Fit, a: Places, b: Places) -> _Evidence:
        one, two = first.timeline, second.timeline
        times, other_times = how.compared_times(one, two)
        start, end = max(times[0], other_times.min()), min(times[-1], other_times.max())
        possible = sorted(
            int(np.count_nonzero((column >= start - how.tolerance) & (column <= end + how.tolerance)))
            for column in (times, other_times)
        )
        pairs = {(int(side), int(other)) for side, other in zip(two.senders[b], one.senders[a], strict=True)}
        sides, bits, distinctive = self._told(one.texts[a], one.bits[a], one.senders[a])
        return _Evidence(
            bits=bits,
            distinctive=distinctive,
            sides=sides,
            matched=len(a),
            possible=possible[0],
            possible_longer=possible[1],
            global_ids=int(np.count_nonzero(one.is_global[a] & two.is_global[b] & (one.ids[a] == two.ids[b]))),
            is_contradicted=how.contradictions > _MAX_CONTRADICTIONS * how.votes
            or any(_are_two_people(two.accounts[side], one.accounts[other]) for side, other in pairs),
            shift=how.shift,
        )

    def _told(
        self, texts: NDArray[np.int64], bits: NDArray[np.uint8], senders: NDArray[np.int32]
    ) -> tuple[tuple[float, ...], float, int]:
        """How much texts tell: by writer, all together, and how many are distinctive. Each text counts once."""
        _, places = np.unique(texts, return_index=True)
        values = bits[places].astype(np.float64)
        spread = self._spread
        if spread:
            values *= [2 / spread.get(text, 2) for text in texts[places].tolist()]
        sides = np.bincount(senders[places], weights=values) if len(places) else np.empty(0)
        return tuple(sides.tolist()), float(values.sum()), int(np.count_nonzero(values >= MIN_DISTINCTIVE_BITS))

    def _are_different(self, a: int, b: int) -> bool:
        """Whether two copies of one name are two chats."""
        first, second = self._copies[a], self._copies[b]
        evidence = self._compare(a, b)
        if evidence.shows_one_chat:
            return False
        if evidence.shows_two_chats:
            return True
        if first.has_group != second.has_group and not evidence.matched:
            return True
        return not (evidence.matched or _share_people(set(first.timeline.accounts), set(second.timeline.accounts)))

    def _candidates(self) -> list[tuple[int, int]]:
        """Pairs of copies that have several telling texts in common at about the same times, or an id."""
        count = len(self._copies)
        told = [np.flatnonzero(copy.timeline.bits >= _MIN_CANDIDATE_BITS) for copy in self._copies]
        hashes, times, places = self._once(told, lambda timeline: timeline.texts)
        first, second = _pairs_of_equals(hashes, self._spread)
        distances = times[second] - times[first]
        is_near = np.abs(distances) <= MAX_SHIFT
        steps = np.rint(distances[is_near] / _STEP).astype(np.int64) + _MAX_STEPS
        pairs = (places[first[is_near]] * count + places[second[is_near]]) * 2 * _MAX_STEPS + steps
        pairs, counts = np.unique(pairs, return_counts=True)
        found = (pairs[counts >= _MIN_SHARED_TEXTS] // (2 * _MAX_STEPS)).tolist()
        hashes, _, places = self._once(
            [np.flatnonzero(copy.timeline.is_global) for copy in self._copies], lambda timeline: timeline.ids
        )
        first, second = _pairs_of_equals(hashes, {})
        found += np.unique(places[first] * count + places[second]).tolist()
        pairs_found = sorted({divmod(pair, count) for pair in found})
        return [(a, b) for a, b in pairs_found if self._may_be_same(a, b)]

    def _once(
        self, chosen: Sequence[Places], column: Callable[[Timeline], NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], Places]:
        """What occurs once in a copy: its hash, its time, and the copy. In the order of the copies."""
        hashes, times, places = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0, np.int64)]
        for place, (copy, numbers) in enumerate(zip(self._copies, chosen, strict=True)):
            values, first, counts = np.unique(column(copy.timeline)[numbers], return_index=True, return_counts=True)
            hashes.append(values[counts == 1])
            times.append(copy.timeline.times[numbers[first[counts == 1]]])
            places.append(np.full(len(hashes[-1]), place))
        return np.concatenate(hashes), np.concatenate(times), np.concatenate(places)


def _pairs_of_equals(hashes: NDArray[np.int64], spread: dict[int, int]) -> tuple[Places, Places]:
    """All pairs of places with equal hashes; puts into `spread` how many are equal, if more than two are."""
    order = np.argsort(hashes, kind="stable")
    values, starts, sizes = np.unique(hashes[order], return_index=True, return_counts=True)
    spread.update(zip(values[sizes > 2].tolist(), sizes[sizes > 2].tolist(), strict=True))
    pairs = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))]
    for size in range(2, _MAX_COPIES_OF_TEXT + 1):
        members = starts[sizes == size]
        pairs += [(order[members + a], order[members + b]) for a, b in combinations(range(size), 2) if len(members)]
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _chained(copies: list[ChatCopy], *, is_reliable: bool) -> Iterator[ChatCopy]:
    """Joins copies that continue one another, such as a log with a file a day."""
    chains: list[list[ChatCopy]] = []
    people: list[set[Account]] = []
    for copy in sorted(copies, key=lambda copy: copy.start):
        accounts = set(copy.timeline.accounts)
        for chain, known in zip(chains, people, strict=True):
            if chain[-1].end < copy.start and (
                is_reliable or (_share_people(known, accounts) and not _may_be_shifted(chain[-1], copy))
            ):
                chain.append(copy)
                known.update(accounts)
                break
        else:
            chains.append([copy])
            people.append(accounts)
    yield from map(concatenated, chains)


def _may_be_shifted(first: ChatCopy, second: ChatCopy) -> bool:
    """Whether a copy that begins soon after another one's end may be the same one in another time zone."""
    if second.start - first.end > MAX_SHIFT:
        return False
    told, other_told = (copy.timeline.texts[copy.timeline.bits >= _MIN_CANDIDATE_BITS] for copy in (first, second))
    return len(np.intersect1d(told, other_told)) >= _MIN_SHARED_TEXTS


def _share_people(first: set[Account], second: set[Account]) -> bool:
    """Whether so many wrote in both that it may be one chat."""
    shared = len(first & second)
    return shared > 1 or 2 * shared > min(len(first), len(second))


def _are_two_people(first: Account, second: Account) -> bool:
    """Whether a service knows them as two."""
    return first != second and first[0] == second[0] and is_service_account(first) and is_service_account(second)
