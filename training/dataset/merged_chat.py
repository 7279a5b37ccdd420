"""Merges the copies of one chat: every message once, in the order in which it was said."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.archives.message import Message
from training.dataset.same_messages import Fit, Places, fit, same_messages
from training.dataset.timeline import Account, ChatCopy, Timeline

_MIN_ALIKE = 0.6
_MAX_COMPARED = 400
"""Characters of a text."""


class MergedChat(msgspec.Struct):
    """One chat out of several copies; the first copy is kept as a whole.

    Attributes:
        copies: the copies.
        timeline: the messages that are kept; its accounts stand for `people`.
        copy_of: the copy of each message, by its position in `copies`.
        place_of: the place of each message in that copy.
        people: the accounts of each person, by copy.
        dropped: for each copy the places of its messages that an earlier copy has.
        kept_instead: for each of these the copy and place of the message that is kept, in two columns.
        shifts: by how many seconds the times of each copy were ahead.
    """

    copies: list[ChatCopy]
    timeline: Timeline
    copy_of: NDArray[np.int32]
    place_of: NDArray[np.int64]
    people: list[dict[int, Account]]
    dropped: list[Places]
    kept_instead: list[NDArray[np.int64]]
    shifts: list[float]


def merge(copies: Sequence[ChatCopy]) -> MergedChat:
    """Merges copies of a chat, of which the first ones are the better ones."""
    first = copies[0]
    merged = MergedChat(
        copies=list(copies),
        timeline=first.timeline,
        copy_of=np.zeros(len(first.timeline), dtype=np.int32),
        place_of=np.arange(len(first.timeline)),
        people=[{0: account} for account in first.timeline.accounts],
        dropped=[np.empty(0, dtype=np.int64)],
        kept_instead=[np.empty((0, 2), dtype=np.int64)],
        shifts=[0.0],
    )
    for number, copy in enumerate(copies[1:], 1):
        how = fit(merged.timeline, copy.timeline)
        in_merged, in_copy = same_messages(merged.timeline, copy.timeline, how)
        in_merged, in_copy = _with_edited(merged, number, how, in_merged, in_copy)
        merged.dropped.append(in_copy)
        merged.kept_instead.append(np.stack([merged.copy_of[in_merged], merged.place_of[in_merged]], axis=1))
        merged.shifts.append(how.shift)
        _insert(merged, number, how, in_merged, in_copy)
    return merged


def _with_edited(
    merged: MergedChat, number: int, how: Fit, in_merged: Places, in_copy: Places
) -> tuple[Places, Places]:
    """Adds messages that were edited between two exports, or that exporters write differently.

    Such a message is the only one without a counterpart between the same two messages in both copies, of the same
    writer and time, and says nearly the same.
    """
    copy = merged.copies[number]
    before, after = in_copy[:-1], in_copy[1:]
    is_gap = (after - before == 2) & (in_merged[1:] - in_merged[:-1] == 2)
    places, other_places = in_merged[:-1][is_gap] + 1, before[is_gap] + 1
    times, other_times = how.compared_times(merged.timeline, copy.timeline)
    is_alike = (how.sides[copy.timeline.senders[other_places]] == merged.timeline.senders[places]) & (
        np.abs(times[places] - other_times[other_places]) <= how.tolerance
    )
    pairs = [
        (place, other)
        for place, other in zip(places[is_alike].tolist(), other_places[is_alike].tolist(), strict=True)
        if _says_nearly_the_same(
            _message(merged, int(merged.copy_of[place]), int(merged.place_of[place])), _message(merged, number, other)
        )
    ]
    if not pairs:
        return in_merged, in_copy
    in_merged = np.concatenate((in_merged, np.array([place for place, _ in pairs])))
    in_copy = np.concatenate((in_copy, np.array([other for _, other in pairs])))
    order = np.argsort(in_copy)
    return in_merged[order], in_copy[order]


def _says_nearly_the_same(one: Message, other: Message) -> bool:
    texts = one.text[:_MAX_COMPARED], other.text[:_MAX_COMPARED]
    return SequenceMatcher(None, *texts, autojunk=False).ratio() >= _MIN_ALIKE


def _insert(merged: MergedChat, number: int, how: Fit, in_merged: Places, in_copy: Places) -> None:
    """Adds those messages of a copy that are not there yet, between those that are."""
    timeline, other = merged.timeline, merged.copies[number].timeline
    sides = _sides(merged, number, how)
    is_new = np.ones(len(other), dtype=np.bool_)
    is_new[in_copy] = False
    new = np.flatnonzero(is_new)
    if not len(new):
        return
    size = len(timeline)
    # The messages of the merged chat that come before and after each new one.
    latest, earliest = np.maximum.accumulate(in_merged), np.minimum.accumulate(in_merged[::-1])[::-1]
    position = np.searchsorted(in_copy, new)
    before = np.concatenate(([-1], latest))[position]
    after = np.concatenate((earliest, [size]))[position]
    low = np.concatenate((timeline.times, [-np.inf]))[before]
    high = np.maximum(low, np.concatenate((timeline.times, [np.inf]))[after])
    times = np.clip(other.times[new] - how.shifts[new], low, high)
    all_times = np.concatenate((timeline.times, times))
    anchors = np.concatenate((np.arange(size), before))
    ranks = np.concatenate((np.zeros(size, dtype=np.int64), 1 + new))
    order = np.lexsort((ranks, anchors, all_times))
    merged.timeline = Timeline(
        times=all_times[order],
        texts=np.concatenate((timeline.texts, other.texts[new]))[order],
        ids=np.concatenate((timeline.ids, other.ids[new]))[order],
        senders=np.concatenate((timeline.senders, sides[other.senders[new]]))[order],
        accounts=[next(iter(person.values())) for person in merged.people],
        bits=np.concatenate((timeline.bits, other.bits[new]))[order],
        is_global=np.concatenate((timeline.is_global, other.is_global[new]))[order],
    )
    merged.copy_of = np.concatenate((merged.copy_of, np.full(len(new), number, dtype=np.int32)))[order]
    merged.place_of = np.concatenate((merged.place_of, new))[order]


def _sides(merged: MergedChat, number: int, how: Fit) -> NDArray[np.int32]:
    """The person of each account of a copy; one whom no earlier copy has is added."""
    sides = how.sides.copy()
    accounts = merged.copies[number].timeline.accounts
    named = {account: place for place, person in enumerate(merged.people) for account in person.values()}
    taken = set(sides.tolist())
    for place, account in enumerate(accounts):
        if sides[place] < 0 and (person := named.get(account)) is not None and person not in taken:
            sides[place] = person
            taken.add(person)
        elif sides[place] < 0:
            sides[place] = len(merged.people)
            merged.people.append({})
        merged.people[sides[place]][number] = account
    return sides


def new_ids(merged: MergedChat) -> dict[int, tuple[str, str | None]]:
    """Ids that change: of messages that are called like another one in another archive, and of what is replied to.

    Returns:
        The new id, and that of the message replied to, by position in the merged chat.
    """
    changed: dict[tuple[int, int], str] = {}
    for position in _clashes(merged):
        number, place = int(merged.copy_of[position]), int(merged.place_of[position])
        changed[number, place] = f"{_message(merged, number, place).id} ({number + 1})"
    found: dict[int, tuple[str, str | None]] = {}
    for number, copy in enumerate(merged.copies):
        here = np.flatnonzero(merged.copy_of == number)
        places = merged.place_of[here]
        instead = dict(zip(merged.dropped[number].tolist(), merged.kept_instead[number].tolist(), strict=True))
        ids = copy.timeline.ids
        order = np.argsort(ids, kind="stable")
        replies = copy.replies[places]
        targets = order[np.searchsorted(ids, replies, sorter=order).clip(0, len(ids) - 1)]
        has_target = (replies != 0) & (ids[targets] == replies)
        for position, place, target, is_reply in zip(
            here.tolist(), places.tolist(), targets.tolist(), has_target.tolist(), strict=True
        ):
            if not (is_reply or (changed and (number, place) in changed)):
                continue
            other_number, other_place = instead.get(target, (number, target))
            is_renamed = (other_number, other_place) in changed or (
                merged.copies[other_number].timeline.ids[other_place] != ids[target]
            )
            if (number, place) not in changed and not (is_reply and is_renamed):
                continue
            message = _message(merged, number, place)
            reply_to = message.reply_to
            if is_reply and is_renamed:
                other = other_number, other_place
                reply_to = changed.get(other) or _message(merged, *other).id
            found[position] = changed.get((number, place), message.id), reply_to
    return found


def _clashes(merged: MergedChat) -> list[int]:
    """Positions of messages whose id another message of a better copy has."""
    ids = merged.timeline.ids
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    places = np.flatnonzero(counts[inverse] > 1)
    best: dict[int, int] = {}
    for place in places.tolist():
        value, number = int(ids[place]), int(merged.copy_of[place])
        best[value] = min(best.get(value, number), number)
    return [place for place in places.tolist() if int(merged.copy_of[place]) != best[int(ids[place])]]


def _message(merged: MergedChat, number: int, place: int) -> Message:
    copy = merged.copies[number]
    return copy.chat.message(int(copy.numbers[place]))
