"""An engine without a model: it answers everything with the same words."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from doppel.config import Config
from doppel.engine import EngineStats, Health, Request, Token
from doppel.models.base import identify, load_tokenizer, prepare_base
from doppel.transcript import FORMATS, ME, Header, Transcript, Turn, open_transcript


class ParrotEngine:
    """Says "polly wants a cracker"."""

    context_length = 4096

    def __init__(self, folder: Path, config: Config) -> None:
        self.base = identify(folder, config.model.base)
        self._transcript = open_transcript(load_tokenizer(folder), FORMATS[config.transcript])
        self._adapters: list[str] = []

    @classmethod
    def open(cls, config: Config, on_progress: Callable[[str], None]) -> "ParrotEngine":
        """Called with the configuration; `on_progress` takes one line for the user before each slow step."""
        return cls(prepare_base(config.model, on_progress), config)

    def transcript_of(self, adapter: str | None) -> Transcript:
        return self._transcript

    async def generate(self, request: Request) -> AsyncGenerator[Token]:
        turn = Turn(ME, ("polly wants a cracker",))
        opening = self._transcript.prompt(Header(), [])
        for token in self._transcript.encode(Header(), [turn]).ids[len(opening) :][: request.sampling.max_tokens]:
            yield Token(token, logprob=0.0)

    async def load_adapter(self, folder: Path) -> str:
        self._adapters.append(folder.name)
        return folder.name

    async def drop_adapter(self, name: str) -> None:
        self._adapters.remove(name)

    def health(self) -> Health:
        return Health(ready=True, adapters=tuple(self._adapters))

    def stats(self) -> EngineStats:
        return EngineStats(active=0, max_active=1, waiting=0)

    def close(self) -> None:
        """There is no thread to stop."""
