"""Turns stored messages into the turns of a prompt.

What a message answers stands before it as a turn of its author, as it does in the sessions that the model was trained
on; the transcript has no marks for quotes.
"""

from collections.abc import Iterator, Sequence

import msgspec

from bot.store.inbox import PromptMessage
from bot.store.schema import InboxMessage
from doppel.transcript import ME, Turn, normalize, pseudonym


class _Bubble(msgspec.Struct, frozen=True):
    """A text of the prompt. `sender` is None for the persona."""

    sender: str | None
    text: str
    message_id: str | None


def to_turns(platform: str, messages: Sequence[PromptMessage | InboxMessage]) -> list[Turn]:
    """The turns of stored messages, oldest first.

    Consecutive messages of one sender become one turn. Texts that are empty after normalization are left out.

    What a message to the persona answers is repeated before it, unless it is there already: in the turn that the
    message belongs to, or in the one before. What other messages answer is added only if the prompt does not have it at
    all: they are context, and people may answer each other all the time.
    """
    bubbles: list[_Bubble] = []
    for message in messages:
        bubble = _Bubble(message.sender, normalize(message.text), message.message_id)
        if not bubble.text:
            continue
        answered = _answered(message)
        if answered is not None:
            nearby = _two_turns(bubbles, bubble.sender) if message.addressed else bubbles
            if not any(_shows(earlier, answered) for earlier in nearby):
                bubbles.append(answered)
        bubbles.append(bubble)
    return _joined(platform, bubbles)


def _answered(message: PromptMessage | InboxMessage) -> _Bubble | None:
    if message.answers_text is None:
        return None
    text = normalize(message.answers_text)
    return _Bubble(message.answers_sender, text, message.answers_message_id) if text else None


def _two_turns(bubbles: Sequence[_Bubble], sender: str | None) -> Iterator[_Bubble]:
    """The last bubbles if they are of this sender, and those of the turn before."""
    last, is_turn_before = sender, False
    for bubble in reversed(bubbles):
        if bubble.sender != last:
            if is_turn_before:
                return
            last, is_turn_before = bubble.sender, True
        yield bubble


def _shows(bubble: _Bubble, answered: _Bubble) -> bool:
    """Whether a bubble is what was answered, or has the quoted part."""
    if bubble.message_id is not None and answered.message_id is not None:
        return bubble.message_id == answered.message_id
    return bubble.sender == answered.sender and answered.text in bubble.text


def _joined(platform: str, bubbles: Sequence[_Bubble]) -> list[Turn]:
    turns: list[tuple[str, list[str]]] = []
    pseudonyms: dict[str, str] = {}
    for bubble in bubbles:
        sender = bubble.sender
        if sender is not None and sender not in pseudonyms:
            pseudonyms[sender] = pseudonym(platform, sender)
        speaker = ME if sender is None else pseudonyms[sender]
        if turns and turns[-1][0] == speaker:
            turns[-1][1].append(bubble.text)
        else:
            turns.append((speaker, [bubble.text]))
    return [Turn(speaker, tuple(texts)) for speaker, texts in turns]
