"""The state of one request in the inference thread: its tokens, its KV cache, and where results go."""

from collections.abc import Callable

from transformers import Cache

from doppel.engine import Request, Token
from doppel.engine.local.sampling import Sampler, TokenMask

_MAX_RESERVED = 256  # cache columns reserved for a reply; a longer one gets more as it grows

Deliver = Callable[[Token | Exception | None], None]
"""Receives each token, then None at the end, or the error. Called on the inference thread; must not block."""


class ActiveRequest:
    """A request that waits or is being generated.

    Args:
        request: what to generate.
        deadline: when it must end, by the engine's clock.
        deliver: receives the results.
        mask: tokens that are never sampled.
    """

    def __init__(self, request: Request, deadline: float, deliver: Deliver, mask: TokenMask | None = None) -> None:
        self.request = request
        self.adapter = request.adapter
        self.deadline = deadline
        self.deliver = deliver
        self.cancelled = False
        self.keeps_cache = True
        """Whether its KV cache is kept for the next turn."""
        self.ids = list(request.prompt)
        """Token ids of prompt and reply."""
        self.cached = 0
        """How many of `ids` are in the KV cache."""
        self.cache: Cache | None = None
        """The request's own cache; None before the prefill, and while its rows are in the batch's cache."""
        self.is_decoding = False
        """Whether the prefill is done: all of `ids` but the last are cached, so that it can join the batch."""
        self.ran_out_of_memory = False
        """Whether its prefill ran out of memory before; it is retried once."""
        self.sampler = Sampler(request.sampling, request.prompt, mask)

    @property
    def generated(self) -> int:
        """Tokens of the reply so far."""
        return len(self.ids) - len(self.request.prompt)

    @property
    def reserve(self) -> int:
        """Cache columns to reserve for the rest of the reply."""
        return min(self.request.sampling.max_tokens - self.generated, _MAX_RESERVED)

    def restart(self) -> None:
        """Drops its cache: prompt and reply so far are prefilled again, and the reply continues unchanged."""
        self.cache = None
        self.cached = 0
        self.is_decoding = False
