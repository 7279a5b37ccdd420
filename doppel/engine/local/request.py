"""One request on its way through the inference thread: what was said, how far it was read, where results go."""

from collections.abc import Callable

from transformers import Cache

from doppel.engine import Request, Token
from doppel.engine.local.sampling import Sampler, TokenMask

_MOST_ROOM = 256  # columns reserved for a reply; one that grows longer gets more

Deliver = Callable[[Token | Exception | None], None]
"""Takes each token; then None for a good end, or what went wrong. Called on the thread; must not block."""


class Job:
    """A request under way.

    Args:
        request: what to generate.
        deadline: when it must end, in the thread's clock.
        deliver: where the results go.
        mask: tokens that are never sampled.
    """

    def __init__(self, request: Request, deadline: float, deliver: Deliver, mask: TokenMask | None = None) -> None:
        self.request = request
        self.deadline = deadline
        self.deliver = deliver
        self.cancelled = False
        self.ids = list(request.prompt)
        """Prompt and reply."""
        self.read = 0
        """How many of them the cache holds."""
        self.cache: Cache | None = None
        """Its own, as long as it is in no batch."""
        self.writing = False
        """Whether all but the last of `ids` are read, so that it may be in the batch."""
        self.retried = False
        """Whether memory did not suffice once while it was read."""
        self.sampler = Sampler(request.sampling, request.prompt, mask)

    @property
    def produced(self) -> int:
        """Tokens of the reply so far."""
        return len(self.ids) - len(self.request.prompt)

    @property
    def room(self) -> int:
        """Columns of a cache that the rest of the reply will need, as a guess."""
        return min(self.request.sampling.max_tokens - self.produced, _MOST_ROOM)

    def start_over(self) -> None:
        """Gives up its cache: prompt and reply so far are to be read again; the reply goes on as it would have."""
        self.cache = None
        self.read = 0
        self.writing = False
