"""Generates the persona's next turn in a conversation, for `doppel chat` and the daemon alike.

    persona = open_persona(config.adapters_dir)             # the current adapter, verified
    name = await engine.load_adapter(persona.folder)        # the engine's name for it
    header = persona.header(platform="telegram", kind="dm", contact=pseudonym, now=now, zone=config.zone)
    async with aclosing(speak(engine, name, header, turns, sampling, max_bubbles=6)) as events:
        async for event in events:                          # no turns: an unprompted turn
            if isinstance(event, GeneratedBubble): ...      # complete, can be sent
            else: ...                                       # PartialBubble: still being generated

with `sampling = persona.sampling(config.reply)`. Closing the generator, or cancelling the task, stops the engine
within one token.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
from pydantic import ValidationError

from doppel.adapters.guard import Guard, read_guard
from doppel.adapters.habits import Habits, read_habits
from doppel.adapters.versions import AdapterRefused, Manifest, read_manifest, version_folder
from doppel.config import ReplySettings
from doppel.engine import Engine, Request, Sampling
from doppel.i18n import tr
from doppel.persona.candidates import best_reply
from doppel.transcript import Header, Transcript, Turn, TurnDecoder, messages_left_out, normalize, serving_header

_LONG_HISTORY = 20_000
"""Characters that a tokenizer encodes in some milliseconds."""


class PartialBubble(msgspec.Struct, frozen=True):
    """The text so far of the bubble being generated. `tokens`: generated so far in this turn."""

    text: str
    tokens: int


class GeneratedBubble(msgspec.Struct, frozen=True):
    """A complete bubble. `tokens`: generated so far in this turn."""

    text: str
    tokens: int


class Persona(msgspec.Struct, frozen=True):
    """A verified adapter, with its manifest, habits and guard."""

    folder: Path
    manifest: Manifest
    habits: Habits
    guard: Guard | None = None

    def header(
        self,
        *,
        kind: str,
        now: datetime,
        zone: ZoneInfo,
        platform: str | None = None,
        contact: str | None = None,
        turns: Sequence[Turn] = (),
    ) -> Header:
        """The header for a turn generated now, as `serving_header` describes."""
        return serving_header(
            self.manifest.header_vocabulary,
            kind=kind,
            now=now,
            zone=zone,
            platform=platform,
            contact=contact,
            turns=turns,
        )

    def sampling(self, reply: ReplySettings, transcript: Transcript | None = None) -> Sampling:
        """The sampling settings: from config.yaml, else tuned for this adapter, else the defaults.

        Args:
            reply: the settings in config.yaml.
            transcript: the adapter's; without it, words in config.yaml cannot be tokenized and are left out.

        Raises:
            AdapterRefused: the manifest's values are out of range.
        """
        fields = (set(Sampling.__struct_fields__) & set(ReplySettings.model_fields)) - {"logit_bias", "bad_words"}
        tuned = {name: value for name, value in self.manifest.sampling.items() if name in fields}
        configured = {name: getattr(reply, name) for name in fields & reply.model_fields_set}
        try:
            merged = ReplySettings.model_validate({**tuned, **configured})
        except ValidationError as error:
            key = error.errors()[0]["loc"][0]
            raise AdapterRefused(tr("{path}: sampling.{key} is out of range", path=self.folder, key=key)) from None
        sampling = Sampling(**{name: getattr(merged, name) for name in fields})
        return sampling if transcript is None else _with_words(sampling, reply, transcript)


def _with_words(sampling: Sampling, reply: ReplySettings, transcript: Transcript) -> Sampling:
    """Adds the words of config.yaml as tokens, and exempts the ends of bubbles and turns from repetition penalties."""

    def forms(word: str) -> list[tuple[int, ...]]:
        """A word's tokens at the beginning of a bubble and after a blank."""
        return list(
            dict.fromkeys(tuple(ids) for ids in transcript.safe_tokenizer.encode_text([word, f" {word}"], "\n") if ids)
        )

    biases = {ids[0]: entry.bias for entry in reply.logit_bias for ids in forms(entry.word)}
    ends = {ids[-1] for ids in transcript.safe_tokenizer.encode_text(["\n", "\n\n", ":"]) if ids}
    return msgspec.structs.replace(
        sampling,
        logit_bias=tuple(biases.items()),
        bad_words=tuple(dict.fromkeys(ids for word in reply.bad_words for ids in forms(word))),
        breakers=transcript.stop_ids | ends if sampling.no_repeat_ngram or sampling.dry_multiplier else frozenset(),
    )


def open_persona(adapters_dir: Path) -> Persona:
    """The current adapter. Raises UserError when there is none yet, AdapterRefused when it is damaged."""
    return read_persona(version_folder(adapters_dir))


def read_persona(folder: Path, version: str | None = None) -> Persona:
    """Reads and verifies one adapter folder; `version` replaces the manifest's. Raises AdapterRefused."""
    manifest = read_manifest(folder)
    if version is not None:
        manifest = msgspec.structs.replace(manifest, version=version)
    try:
        return Persona(folder, manifest, read_habits(folder), read_guard(folder))
    except msgspec.MsgspecError as error:
        raise AdapterRefused(tr("{path}: cannot read habits.json: {error}", path=folder, error=error)) from None


async def speak(
    engine: Engine,
    adapter: str | None,
    header: Header,
    turns: Sequence[Turn],
    sampling: Sampling,
    *,
    max_bubbles: int | None = None,
    candidates: int = 1,
    deadline_seconds: float = 120.0,
) -> AsyncGenerator[PartialBubble | GeneratedBubble]:
    """Generates the persona's next turn and yields it as it grows.

    Ends at the end of the turn, after `max_bubbles`, at `sampling.max_tokens` or at the deadline; an unfinished
    bubble is then yielded as it is. The oldest turns are left out when history and reply together exceed the
    engine's context.

    Args:
        engine: generates the tokens.
        adapter: a name returned by `engine.load_adapter`; None: the base model alone.
        header: from `Persona.header`.
        turns: the conversation so far, oldest first; empty: an unprompted turn.
        sampling: from `Persona.sampling`.
        max_bubbles: maximum bubbles of the turn.
        candidates: generates this many turns and yields only the best one, all its bubbles at the end.
        deadline_seconds: time limit.

    Raises:
        EngineError: the engine is full, closed or failed.
    """
    transcript = engine.transcript_of(adapter)
    max_tokens = min(sampling.max_tokens, engine.context_length // 2)
    request = Request(
        prompt=await _fit_prompt_async(transcript, header, turns, engine.context_length - max_tokens),
        sampling=msgspec.structs.replace(sampling, max_tokens=max_tokens),
        stop_ids=transcript.stop_ids,
        adapter=adapter,
        deadline_seconds=deadline_seconds,
    )
    if candidates > 1:
        recent = [bubble for turn in turns if turn.is_mine for bubble in turn.bubbles]
        unprompted = transcript.prompt(header, ()) if turns else ()
        best = await best_reply(
            engine, request, candidates, recent=recent, unprompted=unprompted, max_bubbles=max_bubbles
        )
        for bubble in best.bubbles:
            yield GeneratedBubble(bubble, len(best.ids))
        return
    decoder = TurnDecoder(transcript)
    tokens = bubble_count = 0
    partial = ""
    async with aclosing(engine.generate(request)) as stream:
        async for token in stream:
            tokens += 1
            for bubble in decoder.feed(token.id):
                yield GeneratedBubble(bubble, tokens)
                bubble_count += 1
                if bubble_count == max_bubbles:
                    return
            if decoder.finished:
                break
            if decoder.partial != partial:
                partial = decoder.partial
                yield PartialBubble(partial, tokens)
    for bubble in decoder.close():
        yield GeneratedBubble(bubble, tokens)


def recent_turns(turns: Sequence[Turn], limit: int) -> Sequence[Turn]:
    """The last turns, at most `limit`; see `messages_left_out`."""
    return turns[min(messages_left_out(len(turns), limit), max(0, len(turns) - 1)) :]


async def _fit_prompt_async(
    transcript: Transcript, header: Header, turns: Sequence[Turn], max_tokens: int
) -> list[int]:
    """`fit_prompt`; in a thread if the tokenizer takes so long that other chats would notice."""
    if sum(len(bubble) for turn in turns for bubble in turn.bubbles) < _LONG_HISTORY:
        return fit_prompt(transcript, header, turns, max_tokens)
    return await asyncio.to_thread(fit_prompt, transcript, header, turns, max_tokens)


def fit_prompt(transcript: Transcript, header: Header, turns: Sequence[Turn], max_tokens: int) -> list[int]:
    """The prompt, with the oldest turns left out until it has at most `max_tokens` tokens.

    If the last turn alone is too long, its beginning is cut off, so that the persona sees the end of what it answers.
    """
    prompt = transcript.prompt(header, turns)
    if not turns or len(prompt) <= max_tokens:
        return prompt
    empty = transcript.prompt(header, [])
    whole = transcript.encode(header, turns)
    ends = whole.turn_ends
    starts = [whole.opening, *ends[:-1]]
    kept = [turn for turn, start in zip(turns, starts, strict=True) if len(empty) + ends[-1] - start <= max_tokens]
    if kept:
        return transcript.prompt(header, kept)
    last = turns[-1]

    def fits(bubbles: Sequence[str]) -> bool:
        return len(transcript.prompt(header, [Turn(last.speaker, tuple(bubbles))])) <= max_tokens

    # A search by halves: encoding a long backlog once for each of its bubbles would take minutes.
    first, end = 0, len(last.bubbles) - 1
    while first < end:
        middle = (first + end) // 2
        if fits(last.bubbles[middle:]):
            end = middle
        else:
            first = middle + 1
    bubbles = last.bubbles[first:]
    while not fits(bubbles):
        text = normalize(bubbles[0][len(bubbles[0]) // 2 + 1 :])
        if not text:
            return empty
        bubbles = (text,)
    return transcript.prompt(header, [Turn(last.speaker, tuple(bubbles))])
