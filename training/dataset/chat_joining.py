"""Joins the copies of each conversation that several archives have, after these were read and before sessions are made.

Afterwards every message of a conversation is stored once, under one chat and one account for each person; the other
copies are counted as duplicates of their archives.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training.archives.message import Kind
from training.cleaning.repeats import message_hash
from training.cleaning.rules import DropReason
from training.dataset.accounting import Ledger
from training.dataset.joined_chats import ChatCorrection, JoinedChat, JoinedChats
from training.dataset.merged_chat import MergedChat, merge, new_ids
from training.dataset.message_store import Correction, MessageStore, StoredChat
from training.dataset.same_chats import SameChat, find_same_chats, is_service_account, is_service_chat
from training.dataset.timeline import Account, ChatCopy
from training.people.owner import OwnerAccounts
from training.people.same_people import SamePeople


def join_same_chats(
    store: MessageStore,
    ledger: Ledger,
    owner: OwnerAccounts,
    labels: Sequence[str],
    foreign: Collection[int] = (),
) -> JoinedChats:
    """Joins the chats in the store, and counts the copies that are left out.

    Args:
        store: the messages of all archives.
        ledger: counts them.
        owner: knows what the archives and the configuration say about the owner.
        labels: names of the archives.
        foreign: archives of somebody in `people`, which do not know who the owner is.
    """
    groups = find_same_chats(store.conversations())
    if not groups:
        return JoinedChats()
    return _Joining(store, ledger, owner, labels, foreign).join(groups)


class _Joining:
    """The state of `join_same_chats`."""

    def __init__(
        self,
        store: MessageStore,
        ledger: Ledger,
        owner: OwnerAccounts,
        labels: Sequence[str],
        foreign: Collection[int],
    ) -> None:
        self._foreign = foreign
        self._store = store
        self._ledger = ledger
        self._owner = owner
        self._labels = labels
        self._joined = JoinedChats()
        self._people = SamePeople(is_service_account)
        self._left_out: list[NDArray[np.int64]] = []
        self._chats_of_source: Counter[int] = Counter()
        self._taken: set[tuple[str, str]] = set()
        """Ids of chats that are given away."""

    def join(self, groups: list[SameChat]) -> JoinedChats:
        """Joins what was found to be the same."""
        parts = Counter(copy.chat for group in groups for copy in group.copies)
        single = [group.copies[0] for group in groups if parts[group.copies[0].chat] == len(group.copies) == 1]
        several = [group for group in groups if parts[group.copies[0].chat] > 1 or len(group.copies) > 1]
        self._taken = {(copy.chat.platform, copy.chat.chat) for copy in single}
        for number, copy in enumerate(copy for group in groups for copy in group.copies):
            self._chats_of_source.update(copy.sources)
            for account in copy.timeline.accounts:
                self._people.add(account, number, copy.start)
        merged = [merge(group.copies) for group in several]
        merged.sort(key=lambda chat: min(copy.start for copy in chat.copies))
        self._identify_people(merged)
        replacements: dict[StoredChat, list[StoredChat]] = {copy.chat: [] for group in several for copy in group.copies}
        for chat in merged:
            replacements[chat.copies[0].chat].append(self._replacement(chat))
        self._store.replace(replacements)
        for copy in single:
            self._rename_people(copy)
        if self._left_out:
            self._joined.left_out = np.unique(np.concatenate(self._left_out))
        self._owner.rename(self._joined.account, self._joined.owner_flag)
        return self._joined

    def _identify_people(self, merged: list[MergedChat]) -> None:
        """Finds accounts of one person, and which are the owner's."""
        ambiguous = _ambiguous_names(merged)
        for chat in merged:
            for person in chat.people:
                if ambiguous.isdisjoint(person.values()):
                    self._people.join(person.values())
        for account, main in self._people.renamed().items():
            self._joined.add_account(account, main)
        for chat in merged:
            platform = chat.copies[0].chat.platform
            for person in chat.people:
                unambiguous = [account for account in person.values() if account not in ambiguous]
                best = self._people.best(unambiguous or person.values())
                main = platform, self._joined.renamed.get(best, best)[1]
                self._rename_here(chat, person, main)
            for copy, account, is_owner in self._owner_flags(chat):
                for source in chat.copies[copy].sources:
                    self._joined.add_owner(source, account, is_owner)

    def _rename_here(self, chat: MergedChat, person: dict[int, Account], main: Account) -> None:
        """Gives a person one account in a chat, unless that would change who is who elsewhere in an archive."""
        for copy, account in person.items():
            for source in chat.copies[copy].sources:
                is_other_platform = account[0] != main[0] and self._joined.account(source, account)[0] != main[0]
                may_rename = is_other_platform or self._chats_of_source[source] == 1
                if may_rename and self._joined.account(source, account) != main:
                    self._joined.add_account(account, main, source)

    def _owner_flags(self, chat: MergedChat) -> Iterator[tuple[int, Account, bool | None]]:
        """What the archives together say about the owner, where they differ: copy, account, whether it is the owner's.

        What one archive knows, the others learn. If they contradict one another, as a friend's archive contradicts the
        owner's own, `persona.me` decides; without it, the other chats do.
        """
        flags = [self._flags(chat, person) for person in chat.people]
        owners = {place for place, found in enumerate(flags) if True in found}
        named = {place for place, person in enumerate(chat.people) if self._is_me(chat, person)}
        is_contradicted = any({True, False} <= found for found in flags) or (
            len(owners) > 1 and not _have_two_owners(chat, owners)
        )
        is_direct = not any(copy.has_group for copy in chat.copies)
        if is_contradicted or (is_direct and all(False in found for found in flags)):
            owners = named if len(named) == 1 else set()
            if not owners and is_direct:
                for person in chat.people:
                    yield from ((copy, account, None) for copy, account in person.items())
                return
        for place, person in enumerate(chat.people):
            if len(owners) == 1 and (place in owners or True in flags[place]):
                yield from ((copy, account, place in owners) for copy, account in person.items())

    def _flags(self, chat: MergedChat, person: dict[int, Account]) -> set[bool | None]:
        """What the copies say about whether a person is the owner."""
        copies = [(chat.copies[copy], account) for copy, account in person.items()]
        return set().union(
            *(copy.owners[account] for copy, account in copies if not all(n in self._foreign for n in copy.sources))
        )

    def _is_me(self, chat: MergedChat, person: dict[int, Account]) -> bool:
        return any(self._owner.is_named(*account, chat.copies[copy].names[account]) for copy, account in person.items())

    def _replacement(self, merged: MergedChat) -> StoredChat:
        """The joined chat; counts what is left out."""
        stored = list(dict.fromkeys(copy.chat for copy in merged.copies))
        platform, chat = self._name(merged)
        kind: Kind = "group" if any(copy.has_group for copy in merged.copies) else "dm"
        corrections: dict[int, Correction] = {}
        for copy in merged.copies:
            for source in copy.sources:
                corrections[source] = self._correction(copy, source, platform, chat, kind)
                self._joined.add_chat(source, (copy.chat.platform, copy.chat.chat), (platform, chat))
                self._ledger.rename(source, (copy.chat.platform, copy.chat.chat), (platform, chat))
        copies = sum(self._count_copies(merged, number, (platform, chat)) for number in range(len(merged.copies)))
        rows = [self._ledger.rows[self._ledger.row_of(source, platform, chat)] for source in corrections]
        names = list(dict.fromkeys(row.name or chat for row in rows))
        if copies or len(names) > 1:
            self._joined.chats.append(
                JoinedChat(
                    platform=platform,
                    chat=chat,
                    names=names,
                    archives=[self._labels[source] for source in corrections],
                    copies=copies,
                    shifts={
                        self._labels[source]: shift / 3600
                        for copy, shift in zip(merged.copies, merged.shifts, strict=True)
                        for source in copy.sources
                        if shift
                    },
                )
            )
        if len(stored) == 1 and not copies and not any(merged.shifts) and len(stored[0]) == len(merged.timeline):
            stored[0].correct(corrections, self._accounts(merged))
            stored[0].rename(platform, chat, is_direct=kind == "dm")
            return stored[0]
        taken, order = [], np.empty(len(merged.timeline), dtype=np.int64)
        done = 0
        for number, copy in enumerate(merged.copies):
            is_here = merged.copy_of == number
            taken.append((copy.chat, copy.numbers[merged.place_of[is_here]]))
            count = len(taken[-1][1])
            order[is_here] = np.arange(done, done + count)
            done += count
        joined = StoredChat.joined(taken, order, merged.timeline.times, new_ids(merged))
        joined.correct(corrections, self._accounts(merged))
        joined.rename(platform, chat, is_direct=kind == "dm")
        return joined

    def _accounts(self, merged: MergedChat) -> set[str]:
        return {
            self._joined.account(merged.copies[copy].sources[0], account)[1]
            for person in merged.people
            for copy, account in list(person.items())[:1]
        }

    def _name(self, merged: MergedChat) -> tuple[str, str]:
        """Platform and id of the joined chat: a service's id rather than a name, and the oldest one."""
        oldest_first = sorted(
            merged.copies,
            key=lambda copy: (
                copy.chat.platform != merged.copies[0].chat.platform,
                not is_service_chat(copy.chat.platform, copy.chat.chat),
                copy.start,
            ),
        )
        platform, chat = oldest_first[0].chat.platform, oldest_first[0].chat.chat
        name, number = chat, 1
        while (platform, name) in self._taken:
            number += 1
            name = f"{chat} ({number})"
        self._taken.add((platform, name))
        return platform, name

    def _correction(self, copy: ChatCopy, source: int, platform: str, chat: str, kind: Kind) -> Correction:
        accounts = {account: self._joined.account(source, account) for account in copy.timeline.accounts}
        return ChatCorrection((platform, chat), kind, accounts, self._joined.owners_in(source, accounts))

    def _count_copies(self, merged: MergedChat, number: int, identity: tuple[str, str]) -> int:
        """Counts the messages of a copy that are left out, and returns their number."""
        copy, dropped = merged.copies[number], merged.dropped[number]
        if not len(dropped):
            return 0
        counts = Counter(copy.chat.sources()[copy.numbers[dropped]].tolist())
        for source, count in counts.items():
            self._ledger.drop({self._ledger.row_of(source, *identity): count}, DropReason.DUPLICATE)
        kept = merged.kept_instead[number]
        is_renamed = np.ones(len(dropped), dtype=np.bool_)
        for other, kept_copy in enumerate(merged.copies[:number]):
            if kept_copy.chat is copy.chat:
                is_there = kept[:, 0] == other
                ids = kept_copy.timeline.ids[kept[is_there, 1]]
                is_renamed[is_there] = ids != copy.timeline.ids[dropped[is_there]]
        hashes = copy.timeline.ids[dropped[is_renamed]].tolist()
        stored = copy.chat.platform, copy.chat.chat
        self._left_out.append(np.array([message_hash(*stored, value) for value in hashes], dtype=np.int64))
        return len(dropped)

    def _rename_people(self, copy: ChatCopy) -> None:
        """Calls people in a chat of one archive as they are called where it was joined."""
        renamed = self._joined.renamed
        accounts = copy.timeline.accounts
        changes = {account: main for account in accounts if (main := renamed.get(account)) and main[0] == account[0]}
        owners = {source: self._joined.owners_in(source, accounts) for source in copy.sources}
        if changes or any(owners.values()):
            corrections: dict[int, Correction] = {
                source: ChatCorrection(None, None, changes, owners[source]) for source in copy.sources
            }
            copy.chat.correct(corrections, {changes.get(account, account)[1] for account in accounts})


def _have_two_owners(chat: MergedChat, owners: set[int]) -> bool:
    """Whether one copy says of two people that they are the owner."""
    counts = Counter(
        copy
        for place in owners
        for copy, account in chat.people[place].items()
        if True in chat.copies[copy].owners[account]
    )
    return max(counts.values()) > 1


def _ambiguous_names(merged: list[MergedChat]) -> set[Account]:
    """Accounts, really names, that are one person's in one private chat and another one's in another."""
    people: dict[Account, list[frozenset[Account]]] = {}
    for chat in merged:
        if not any(copy.has_group for copy in chat.copies):
            for person in chat.people:
                accounts = frozenset(person.values())
                for account in accounts if len(accounts) > 1 else ():
                    people.setdefault(account, []).append(accounts)
    return {
        account
        for account, groups in people.items()
        if any(not (group <= groups[0] or group >= groups[0]) for group in groups)
    }
