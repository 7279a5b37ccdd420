"""Generates several replies to the same message and picks the best one (see `ranking`).

All are requested at once, so that an engine can decode them in one batch.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from doppel.engine import Engine, Request, ScoringEngine
from doppel.persona.ranking import ReplyCandidate, best_candidate
from doppel.transcript import Transcript, TurnDecoder


class GeneratedReply(msgspec.Struct, frozen=True):
    """A generated reply, and its tokens' log-probabilities under the adapter where the engine sends them."""

    bubbles: tuple[str, ...]
    ids: list[int]
    adapter: list[float] | None


async def best_reply(
    engine: Engine,
    request: Request,
    count: int,
    *,
    recent: Sequence[str] = (),
    unprompted: Sequence[int] = (),
    max_bubbles: int | None = None,
) -> GeneratedReply:
    """The best of `count` replies to one request.

    Args:
        engine: if it cannot score text, only novelty decides.
        request: its seed, if any, is that of the first reply; the others count up from it.
        count: how many are generated.
        recent: the persona's recent bubbles in this chat.
        unprompted: the prompt without the conversation; empty: there is none, so that relevance does not count.
        max_bubbles: maximum bubbles of a reply.

    Raises:
        EngineError: the engine is full, closed or failed.
    """
    transcript = engine.transcript_of(request.adapter)
    requests = [_with_seed_offset(request, number) for number in range(count)]
    tasks = [asyncio.create_task(_generate(engine, copy, transcript, max_bubbles)) for copy in requests]
    try:
        replies = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    has_logprobs = request.adapter is not None and all(reply.adapter is not None for reply in replies)
    if not has_logprobs or not isinstance(engine, ScoringEngine):
        return replies[best_candidate([ReplyCandidate(reply.bubbles) for reply in replies], recent)]
    ids = [reply.ids for reply in replies]
    base = await engine.base_log_probabilities(request.prompt, ids)
    without = await engine.base_log_probabilities(unprompted, ids) if unprompted else [()] * count
    candidates = [
        ReplyCandidate(reply.bubbles, reply.adapter or (), base_logprobs, unprompted_logprobs)
        for reply, base_logprobs, unprompted_logprobs in zip(replies, base, without, strict=True)
    ]
    return replies[best_candidate(candidates, recent)]


def _with_seed_offset(request: Request, offset: int) -> Request:
    seed = request.sampling.seed
    if seed is None:
        return request
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, seed=seed + offset))


async def _generate(
    engine: Engine, request: Request, transcript: Transcript, max_bubbles: int | None
) -> GeneratedReply:
    decoder = TurnDecoder(transcript)
    bubbles: list[str] = []
    ids: list[int] = []
    logprobs: list[float | None] = []
    async with aclosing(engine.generate(request)) as stream:
        async for token in stream:
            ids.append(token.id)
            logprobs.append(token.model_logprob)
            bubbles += decoder.feed(token.id)
            if decoder.finished or len(bubbles) == max_bubbles:
                break
    if len(bubbles) != max_bubbles:
        bubbles += decoder.close()
    known = [logprob for logprob in logprobs if logprob is not None]
    return GeneratedReply(tuple(bubbles[:max_bubbles]), ids, known if len(known) == len(ids) else None)
