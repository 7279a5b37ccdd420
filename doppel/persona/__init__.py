"""From a conversation to the persona's bubbles: what `doppel chat` and the daemon have in common.

    persona = open_persona(config)                          # the current adapter, verified
    name = await engine.load_adapter(persona.folder)        # the engine's name for it
    header = persona.header(platform="telegram", kind="dm", contact=pseudonym, now=now, zone=config.zone)
    async with aclosing(speak(engine, name, header, turns, sampling, max_bubbles=6)) as events:
        async for event in events:                          # no turns: it speaks of its own accord
            if isinstance(event, Bubble): ...               # complete, may be sent
            else: ...                                       # Partial: what is being written

with `sampling = persona.sampling(config.reply)`. Closing the events, or cancelling the task, stops the
engine within one token. Knows no platform, no store and no clock.
"""

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
from doppel.config import Config, ReplySettings
from doppel.engine import Engine, Request, Sampling
from doppel.i18n import tr
from doppel.persona.candidates import best_of
from doppel.transcript import Header, Transcript, Turn, TurnDecoder, hour_bucket, normalize, weekday_name


class Partial(msgspec.Struct, frozen=True):
    """The bubble being written, as far as it goes. `tokens` were generated so far in this turn."""

    text: str
    tokens: int


class Bubble(msgspec.Struct, frozen=True):
    """A complete bubble. `tokens` were generated so far in this turn."""

    text: str
    tokens: int


class Persona(msgspec.Struct, frozen=True):
    """A verified adapter folder and what is known about speaking with it."""

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
        language: str | None = None,
    ) -> Header:
        """The header to speak under now: only values that training saw; the rest is left out.

        Args:
            kind: `dm`, `group` or `post`.
            now: the time, aware; turned into the owner's zone.
            zone: the owner's zone (`config.zone`).
            platform: where it speaks, for example `telegram`.
            contact: pseudonym of the other person (`transcript.pseudonym`), in a conversation of two.
            language: ISO 639-1; None takes the persona's only language, if it has but one.
        """
        vocabulary = self.manifest.header_vocabulary
        local = now.astimezone(zone)
        years = vocabulary.get("year", [])
        languages = vocabulary.get("language", [])
        wanted = {
            "year": max(years, default=None),  # the person as they were last
            "weekday": weekday_name(local.weekday()),
            "hour": hour_bucket(local.hour),
            "platform": platform,
            "kind": kind,
            "language": languages[0] if language is None and len(languages) == 1 else language,
            "contact": contact,
        }
        return Header(**{field: value for field, value in wanted.items() if value in vocabulary.get(field, ())})

    def sampling(self, reply: ReplySettings, transcript: Transcript | None = None) -> Sampling:
        """How to sample: what config.yaml sets, else what was tuned for this adapter, else the defaults.

        Args:
            reply: what config.yaml sets.
            transcript: of the adapter; without it the words of config.yaml have no tokens, and are left out.

        Raises:
            AdapterRefused: the manifest's values are out of range.
        """
        fields = (set(Sampling.__struct_fields__) & set(ReplySettings.model_fields)) - {"logit_bias", "bad_words"}
        tuned = {name: value for name, value in self.manifest.sampling.items() if name in fields}
        chosen = {name: getattr(reply, name) for name in fields & reply.model_fields_set}
        try:
            checked = ReplySettings.model_validate({**tuned, **chosen})
        except ValidationError as error:
            key = error.errors()[0]["loc"][0]
            raise AdapterRefused(tr("{path}: sampling.{key} is out of range", path=self.folder, key=key)) from None
        sampling = Sampling(**{name: getattr(checked, name) for name in fields})
        return sampling if transcript is None else _with_words(sampling, reply, transcript)


def _with_words(sampling: Sampling, reply: ReplySettings, transcript: Transcript) -> Sampling:
    """The sampling with the words of config.yaml as tokens, and the ends of bubbles and turns free to recur."""

    def forms(word: str) -> list[tuple[int, ...]]:
        """A word at the beginning of a bubble, and after a blank."""
        return list(
            dict.fromkeys(tuple(ids) for ids in transcript.safe_tokenizer.encode_text([word, f" {word}"], "\n") if ids)
        )

    biases = {ids[0]: one.bias for one in reply.logit_bias for ids in forms(one.word)}
    ends = {ids[-1] for ids in transcript.safe_tokenizer.encode_text(["\n", "\n\n", ":"]) if ids}
    return msgspec.structs.replace(
        sampling,
        logit_bias=tuple(biases.items()),
        bad_words=tuple(dict.fromkeys(ids for word in reply.bad_words for ids in forms(word))),
        breakers=transcript.stop_ids | ends if sampling.no_repeat_ngram or sampling.dry_multiplier else frozenset(),
    )


def open_persona(config: Config) -> Persona:
    """The persona's adapter in use. Raises UserError when there is none yet, AdapterRefused when it is damaged."""
    return read_persona(version_folder(config.adapters_dir))


def read_persona(folder: Path, version: str | None = None) -> Persona:
    """The persona of one adapter folder, verified; `version` replaces the manifest's. Raises AdapterRefused."""
    manifest = read_manifest(folder)
    if version is not None:
        manifest = msgspec.structs.replace(manifest, version=version)
    try:
        return Persona(folder, manifest, read_habits(folder), read_guard(folder))
    except msgspec.MsgspecError as error:
        raise AdapterRefused(tr("{path}: habits.json cannot be read: {error}", path=folder, error=error)) from None


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
) -> AsyncGenerator[Partial | Bubble]:
    """Generates the persona's next turn and yields it as it grows.

    Ends at the turn's end, after `max_bubbles`, at `sampling.max_tokens` or at the deadline; what was
    being written at one of the last two is yielded as a bubble too. The oldest turns are left out when
    history and reply do not fit the engine's context together.

    Args:
        adapter: the name `engine.load_adapter` gave; None speaks with the base model alone.
        turns: the conversation so far, oldest first; empty: the persona speaks of its own accord.
        candidates: so many turns are written and only the best is yielded, its bubbles all at the end.

    Raises:
        EngineError: the engine is full, closed or failed.
    """
    transcript = engine.transcript_of(adapter)
    max_tokens = min(sampling.max_tokens, engine.context_length // 2)
    request = Request(
        prompt=fit_prompt(transcript, header, turns, engine.context_length - max_tokens),
        sampling=msgspec.structs.replace(sampling, max_tokens=max_tokens),
        stop_ids=transcript.stop_ids,
        adapter=adapter,
        deadline_seconds=deadline_seconds,
    )
    if candidates > 1:
        recent = [bubble for turn in turns if turn.is_mine for bubble in turn.bubbles]
        unprompted = transcript.prompt(header, ()) if turns else ()
        chosen = await best_of(
            engine, request, candidates, recent=recent, unprompted=unprompted, max_bubbles=max_bubbles
        )
        for bubble in chosen.bubbles:
            yield Bubble(bubble, len(chosen.ids))
        return
    decoder = TurnDecoder(transcript)
    tokens = said = 0
    partial = ""
    async with aclosing(engine.generate(request)) as stream:
        async for token in stream:
            tokens += 1
            for bubble in decoder.feed(token.id):
                yield Bubble(bubble, tokens)
                said += 1
                if said == max_bubbles:
                    return
            if decoder.finished:
                break
            if decoder.partial != partial:
                partial = decoder.partial
                yield Partial(partial, tokens)
    for bubble in decoder.close():
        yield Bubble(bubble, tokens)


def latest(turns: Sequence[Turn], limit: int) -> Sequence[Turn]:
    """The last turns, at most `limit`: the oldest go a quarter of it at a time.

    In between the beginning stays the same, so that an engine need not read all of it anew for each reply.
    """
    step = max(1, limit // 4)
    over = len(turns) - limit
    return turns[min(-(-over // step) * step, len(turns) - 1) :] if over > 0 else turns


def fit_prompt(transcript: Transcript, header: Header, turns: Sequence[Turn], room: int) -> list[int]:
    """The prompt of at most `room` tokens: whole turns are left out, the oldest first.

    A last turn too long by itself keeps its end: the persona must see what it answers.
    """
    alone = transcript.prompt(header, [])
    if not turns:
        return alone
    whole = transcript.encode(header, turns)
    ends = whole.turn_ends
    starts = [whole.opening, *ends[:-1]]
    kept = [turn for turn, start in zip(turns, starts, strict=True) if len(alone) + ends[-1] - start <= room]
    if kept:
        return transcript.prompt(header, kept)
    last = turns[-1]
    while len(prompt := transcript.prompt(header, [last])) > room:
        if len(last.bubbles) > 1:
            last = Turn(last.speaker, last.bubbles[1:])
        elif text := normalize(last.bubbles[0][len(last.bubbles[0]) // 2 + 1 :]):
            last = Turn(last.speaker, (text,))
        else:
            return alone
    return prompt
