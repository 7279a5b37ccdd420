"""From stored messages to the turns of a prompt. Knows neither store nor engine at work."""

from collections.abc import Iterable

from doppel.transcript import ME, Turn, normalize, pseudonym


def turns_of(platform: str, said: Iterable[tuple[str | None, str]]) -> list[Turn]:
    """Turns of (sender, text) pairs, oldest first; sender None is the persona.

    Consecutive messages of one speaker become one turn; texts that are empty once normalized are left out.
    """
    turns: list[Turn] = []
    for sender, text in said:
        bubble = normalize(text)
        if not bubble:
            continue
        speaker = ME if sender is None else pseudonym(platform, sender)
        if turns and turns[-1].speaker == speaker:
            turns[-1] = Turn(speaker, (*turns[-1].bubbles, bubble))
        else:
            turns.append(Turn(speaker, (bubble,)))
    return turns
