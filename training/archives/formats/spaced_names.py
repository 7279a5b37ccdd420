"""Finds who writes in lines such as `Tom Berg see you`, where only a blank separates the name from the text.

A name is the first word, with the words that nearly always follow it. Of two people who share the first word, a second
word tells: one that often follows, that nobody else begins a text with, and that is never the whole text.
"""

from collections import Counter
from collections.abc import Collection, Iterable

from training.archives.formats.sender_names import file_name_key

_MAX_WORDS = 4
_MIN_TOGETHER = 0.9
_MIN_COUNT = 5
_MIN_SHARE = 0.1
"""Share of a first word's lines that one of several people who are called so writes."""


class SpacedNames:
    """Counts how the lines of a file begin.

    Args:
        texts: the lines, without those that are notices.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._starts: Counter[str] = Counter()
        self._whole = set[str]()
        self._before: dict[str, set[str]] = {}
        """The first words that a second word follows."""
        for text in texts:
            words = text.partition("\n")[0].split(" ")
            for count in range(1, min(len(words), _MAX_WORDS + 1)):
                self._starts[" ".join(words[:count])] += 1
            if len(words) > 1:
                self._before.setdefault(words[1], set()).add(words[0])
            if len(words) == 2:
                self._whole.add(" ".join(words))

    def names(self, title: str, me: Iterable[str] = ()) -> set[str]:
        """Everybody who writes.

        Args:
            title: the name of the other person, as far as a file's name can have it; empty if it is not known.
            me: `persona.me`.
        """
        starts, names = self._starts, set[str]()
        names.update(name for entry in me for name in (entry, entry.partition(":")[2]) if " " in name and starts[name])
        followers, namesakes = self._followers(), self._namesakes()
        for word in [start for start in starts if start and " " not in start]:
            people = [] if word in followers else namesakes.get(word, [])
            if sum(starts[person] for person in people) < starts[word]:
                people = [word, *people]
            names.update(_last(person, followers) for person in people)
        return self._with_partner(names, title) if title else names

    def _followers(self) -> dict[str, str]:
        """What nearly always goes on alike, with the next word."""
        followers: dict[str, str] = {}
        for start, count in self._starts.items():
            shorter = start.rpartition(" ")[0]
            is_usual = count >= max(_MIN_COUNT, _MIN_TOGETHER * self._starts[shorter])
            if shorter and is_usual and start not in self._whole:
                followers[shorter] = start
        return followers

    def _namesakes(self) -> dict[str, list[str]]:
        """The longer names of people who share a first word."""
        namesakes: dict[str, list[str]] = {}
        for start, count in self._starts.items():
            first, _, second = start.partition(" ")
            is_word = len(second) > 1 and " " not in second and not second[0].islower()
            is_frequent = count >= max(_MIN_COUNT, _MIN_SHARE * self._starts[first])
            if is_word and is_frequent and start not in self._whole and len(self._before[second]) == 1:
                namesakes.setdefault(first, []).append(start)
        return namesakes

    def _with_partner(self, names: Collection[str], title: str) -> set[str]:
        """The names with that of the other person, whom the title names."""
        starts, key = self._starts, file_name_key(title)
        titled = [start for start in starts if file_name_key(start) == key]
        if not titled:
            return {*names, title}
        first = min(titled, key=len)
        partner = title if title in starts else max((one for one in titled if starts[one] == starts[first]), key=len)
        word = partner.partition(" ")[0]
        # Of people whose names begin alike, those stay who wrote something else.
        others = {one for one in names if one.partition(" ")[0] != word or starts[one] != starts[partner]}
        return {*others, partner}


def _last(name: str, followers: dict[str, str]) -> str:
    while name in followers:
        name = followers[name]
    return name
