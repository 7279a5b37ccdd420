"""Turns stored messages into the turns of a prompt."""

from collections.abc import Iterable

from doppel.transcript import ME, Turn, normalize, pseudonym


def to_turns(platform: str, messages: Iterable[tuple[str | None, str]]) -> list[Turn]:
    """Turns of (sender, text) pairs, oldest first; sender None is the persona.

    Consecutive messages of one sender become one turn. Texts that are empty after normalization are left out.
    """
    turns: list[Turn] = []
    speakers: dict[str | None, str] = {None: ME}
    for sender, text in messages:
        bubble = normalize(text)
        if not bubble:
            continue
        if sender not in speakers:
            speakers[sender] = pseudonym(platform, sender)
        speaker = speakers[sender]
        if turns and turns[-1].speaker == speaker:
            turns[-1] = Turn(speaker, (*turns[-1].bubbles, bubble))
        else:
            turns.append(Turn(speaker, (bubble,)))
    return turns
