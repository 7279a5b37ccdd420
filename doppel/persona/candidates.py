"""Several replies to the same message, of which the one most like the owner and to the point is given.

All are asked for at once, so that an engine may sample them as one batch. Knows engines; the choice is `likeness`'s.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from doppel.engine import Engine, Request, Scores
from doppel.persona.ranking import Candidate, best
from doppel.transcript import Transcript, TurnDecoder


class Written(msgspec.Struct, frozen=True):
    """A reply as it was generated, and what the adapter thinks of its tokens, where the engine says."""

    bubbles: tuple[str, ...]
    ids: list[int]
    adapter: list[float] | None


async def best_of(
    engine: Engine,
    request: Request,
    count: int,
    *,
    recent: Sequence[str] = (),
    unprompted: Sequence[int] = (),
    max_bubbles: int | None = None,
) -> Written:
    """The best of `count` replies to one request.

    Args:
        engine: one that does not say how likely it finds a text leaves the choice to novelty alone.
        request: its seed, if it has one, is that of the first reply; the others follow from it.
        count: how many are sampled.
        recent: what the persona said lately in this chat, a bubble each.
        unprompted: the prompt without what was said before; empty: nothing was, so that no reply is more to the point.
        max_bubbles: where a reply is cut off.

    Raises:
        EngineError: the engine is full, closed or failed.
    """
    transcript = engine.transcript_of(request.adapter)
    requests = [_seeded(request, number) for number in range(count)]
    tasks = [asyncio.create_task(_write(engine, one, transcript, max_bubbles)) for one in requests]
    try:
        written = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    is_known = request.adapter is not None and all(one.adapter is not None for one in written)
    if not is_known or not isinstance(engine, Scores):
        return written[best([Candidate(one.bubbles) for one in written], recent)]
    ids = [one.ids for one in written]
    base = await engine.base_log_probabilities(request.prompt, ids)
    alone = await engine.base_log_probabilities(unprompted, ids) if unprompted else [()] * count
    judged = [
        Candidate(one.bubbles, one.adapter or (), theirs, nothing)
        for one, theirs, nothing in zip(written, base, alone, strict=True)
    ]
    return written[best(judged, recent)]


def _seeded(request: Request, number: int) -> Request:
    seed = request.sampling.seed
    if seed is None:
        return request
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, seed=seed + number))


async def _write(engine: Engine, request: Request, transcript: Transcript, max_bubbles: int | None) -> Written:
    decoder = TurnDecoder(transcript)
    bubbles: list[str] = []
    ids: list[int] = []
    thought: list[float | None] = []
    async with aclosing(engine.generate(request)) as stream:
        async for token in stream:
            ids.append(token.id)
            thought.append(token.model_logprob)
            bubbles += decoder.feed(token.id)
            if decoder.finished or len(bubbles) == max_bubbles:
                break
    if len(bubbles) != max_bubbles:
        bubbles += decoder.close()
    known = [one for one in thought if one is not None]
    return Written(tuple(bubbles[:max_bubbles]), ids, known if len(known) == len(ids) else None)
