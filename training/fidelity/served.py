"""The owner's replies with the prompts that the daemon would have written them from.

A running chat is served with its last messages, however many conversations ago they were, and with a header of its own.
What is measured on shorter prompts says little about that: an adapter may be good at the first lines of a conversation
and no better than its base after a screen of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from zoneinfo import ZoneInfo

import msgspec

from doppel.adapters.versions import Manifest
from doppel.config import Config
from doppel.transcript import ME, NO_LOSS, Header, Transcript, Turn, messages_left_out, serving_header
from training.dataset.files import CHAT_KINDS, Session, kind_of
from training.lora.examples import Example, sample_by_size, sample_evenly

_FEWEST_TOKENS = 4
"""Of a reply."""
_MOST_TOKENS = 4
"""Of a character."""

MAX_PROMPT_TOKENS = 4096
"""Longer prompts are cut here in an examination, whatever the base could read: they take minutes on a CPU."""


class Serving(msgspec.Struct, frozen=True):
    """How the daemon writes a prompt.

    Attributes:
        vocabulary: header values that the adapter saw in training, by field.
        zone: the owner's time zone.
        history: messages of the chat in a prompt, at most; `reply.history` in config.yaml.
        max_tokens: of a prompt.
    """

    vocabulary: Mapping[str, Sequence[str]]
    zone: ZoneInfo
    history: int
    max_tokens: int


def serving_of(config: Config, manifest: Manifest, context_length: int) -> Serving:
    """How the daemon writes prompts with this configuration and adapter; `context_length` is the base's limit."""
    context = min(context_length, config.engine.context_length or context_length, MAX_PROMPT_TOKENS)
    return Serving(
        vocabulary=manifest.header_vocabulary,
        zone=config.zone,
        history=config.reply.history,
        max_tokens=context - min(config.reply.max_tokens, context // 2),
    )


class Exchange(msgspec.Struct, frozen=True):
    """A turn that answers another person's, with its context. Usually the owner's.

    Attributes:
        session_id: of the conversation; exchanges of one conversation are not independent.
        header: of the prompt.
        context: the turns before, oldest first, at least one; the last is another person's.
        reply: the turn that answers them.
        left_out: messages of the chat before `context`; exchanges with equally many share its beginning.
    """

    session_id: str = msgspec.field(name="session")
    header: Header
    context: tuple[Turn, ...]
    reply: Turn
    left_out: int = 0

    @property
    def text(self) -> str:
        """The reply, one bubble per line."""
        return "\n".join(self.reply.bubbles)


class ServedWindow(msgspec.Struct, frozen=True):
    """Replies whose prompts begin alike, so that one pass over the longest of them reads them all.

    Attributes:
        example: the last prompt and its reply, with loss on the replies.
        exchanges: the replies in order.
        prompt_lengths: tokens before each reply.
        ends: tokens up to the end of each reply.
    """

    example: Example
    exchanges: list[Exchange]
    prompt_lengths: list[int]
    ends: list[int]

    @property
    def session_id(self) -> str:
        """The conversation that the replies are from."""
        return self.exchanges[0].session_id


def served_exchanges(
    sessions: Sequence[Session],
    examined: Iterable[Session],
    transcript: Transcript,
    serving: Serving,
    speaker_of: Callable[[Session], str | None] = lambda _: ME,
) -> list[Exchange]:
    """The replies in some sessions, each with what the daemon would have had before it, in order of time.

    Args:
        sessions: of all splits; earlier ones of a chat are history.
        examined: those whose replies are wanted.
        transcript: of the adapter.
        serving: how the daemon writes a prompt.
        speaker_of: whose replies in a session; None for nobody's.
    """
    speakers = {session.id: speaker_of(session) for session in examined}
    found: list[tuple[Session, Exchange]] = []
    for chat in _chats(sessions):
        if any(session.id in speakers for session in chat):
            found += _exchanges_of_chat(chat, speakers, serving)
    found.sort(key=lambda pair: pair[0].started_at)
    fitted = (_fit(exchange, transcript, serving.max_tokens) for _, exchange in found)
    return [exchange for exchange in fitted if exchange is not None]


def served_windows(
    exchanges: Iterable[Exchange], transcript: Transcript, scored_tokens: int | None = None
) -> list[ServedWindow]:
    """The exchanges, those of one conversation together whose prompts begin alike.

    Args:
        exchanges: in order of time.
        transcript: of the adapter.
        scored_tokens: of the replies, about; windows beyond that are left out, evenly over time. None: all of them.
    """
    groups = [
        list(group)
        for _, group in groupby(exchanges, lambda exchange: (exchange.session_id, exchange.left_out, exchange.header))
    ]
    if scored_tokens is None:
        return [_window(group, transcript) for group in groups]
    # Reading a large archive's prompts only to leave them out would take minutes; a reply has a few tokens at least.
    windows = [_window(group, transcript) for group in sample_evenly(groups, scored_tokens // _FEWEST_TOKENS)]
    return sample_by_size(windows, scored_tokens, lambda window: window.example.supervised)


def after_prompt(prompt: Sequence[int], ids: Sequence[int], transcript: Transcript) -> list[int]:
    """A sequence that goes on from a few-shot prompt instead of beginning anew."""
    return [*prompt, *ids[len(transcript.start) :]] if prompt else list(ids)


def _chats(sessions: Sequence[Session]) -> Iterator[list[Session]]:
    """The sessions of each chat in order of time; a post or thread by itself."""
    chats: dict[str, list[Session]] = {}
    for session in sorted(sessions, key=lambda session: session.started_at):
        if kind_of(session) in CHAT_KINDS:
            chats.setdefault(session.chat, []).append(session)
        else:
            yield [session]
    yield from chats.values()


def _exchanges_of_chat(
    chat: list[Session], speakers: Mapping[str, str | None], serving: Serving
) -> Iterator[tuple[Session, Exchange]]:
    platform = _usual(session.header.platform for session in chat)
    contact = _usual(session.header.contact for session in chat)
    messages: list[tuple[str, str]] = []  # (speaker, text) of everything before
    for session in chat:
        kind = kind_of(session)
        speaker = speakers.get(session.id)
        header_of = partial(
            serving_header,
            serving.vocabulary,
            kind=kind or "",
            now=session.started_at,
            zone=serving.zone,
            platform=platform,
            contact=contact if kind == "dm" else None,
        )
        for index, turn in enumerate(session.turns):
            if index and turn.speaker == speaker != session.turns[index - 1].speaker:
                left_out = messages_left_out(len(messages), serving.history)
                turns = _turns(messages[left_out:])
                yield session, Exchange(session.id, header_of(turns=turns), turns, turn, left_out)
            messages += [(turn.speaker, bubble) for bubble in turn.bubbles]


def _usual(values: Iterable[str | None]) -> str | None:
    """The commonest value; some sessions lack header fields."""
    counts = Counter(value for value in values if value)
    return counts.most_common(1)[0][0] if counts else None


def _turns(messages: Sequence[tuple[str, str]]) -> tuple[Turn, ...]:
    return tuple(
        Turn(speaker, tuple(text for _, text in group))
        for speaker, group in groupby(messages, lambda message: message[0])
    )


def _fit(exchange: Exchange, transcript: Transcript, max_tokens: int) -> Exchange | None:
    """The exchange without the oldest turns that do not fit into a prompt; None if not even the last one does."""
    if sum(len(bubble) for turn in exchange.context for bubble in turn.bubbles) * _MOST_TOKENS < max_tokens // 2:
        return exchange
    encoded = transcript.encode(exchange.header, exchange.context)
    excess = len(transcript.prompt(exchange.header, exchange.context)) - max_tokens
    if excess <= 0:
        return exchange
    starts = [encoded.opening, *encoded.turn_ends[:-1]]
    dropped = next((index for index, start in enumerate(starts) if start - encoded.opening >= excess), None)
    if dropped is None:
        return None
    left_out = exchange.left_out + sum(len(turn.bubbles) for turn in exchange.context[:dropped])
    return msgspec.structs.replace(exchange, context=exchange.context[dropped:], left_out=left_out)


def _window(exchanges: list[Exchange], transcript: Transcript) -> ServedWindow:
    last = exchanges[-1]
    encoded = transcript.encode(last.header, (*last.context, last.reply), last.reply.speaker)
    loss_mask = [NO_LOSS] * len(encoded.ids)
    prompt_lengths, ends, text_bytes = [], [], 0
    for exchange in exchanges:
        position = len(exchange.context)
        start, end = encoded.turn_ends[position - 1], encoded.turn_ends[position]
        loss_mask[start:end] = encoded.loss_mask[start:end]
        prompt_lengths.append(
            start + next(at for at, loss in enumerate(encoded.loss_mask[start:end]) if loss > NO_LOSS)
        )
        ends.append(end)
        text_bytes += encoded.turn_bytes[position]
    return ServedWindow(Example(encoded.ids, loss_mask, text_bytes), exchanges, prompt_lengths, ends)
