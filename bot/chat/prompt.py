"""Turns stored messages into the turns of a prompt."""

from collections.abc import Iterable

from doppel.transcript import ME, Turn, normalize, pseudonym


def to_turns(platform: str, messages: Iterable[tuple[str | None, str]]) -> list[Turn]:
    """Turns of (sender, text) pairs, oldest first; sender None is the persona.

    Consecutive messages of one sender become one turn. Texts that are empty after normalization are left out.
    """
    turns: list[Turn] = []
    pseudonyms: dict[str, str] = {}
    for sender, text in messages:
        bubble = normalize(text)
        if not bubble:
            continue
        if sender is not None and sender not in pseudonyms:
            pseudonyms[sender] = pseudonym(platform, sender)
        speaker = ME if sender is None else pseudonyms[sender]
        if turns and turns[-1].speaker == speaker:
            turns[-1] = Turn(speaker, (*turns[-1].bubbles, bubble))
        else:
            turns.append(Turn(speaker, (bubble,)))
    return turns
