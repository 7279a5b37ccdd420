"""Turns the events of a streamed completion into tokens: by their ids if the server sends them, else by its text."""

import math
from collections.abc import Sequence
from typing import Any

from doppel.engine import EngineError, Token
from doppel.engine.remote.prompt_text import reply_ids
from doppel.engine.remote.sampling import Dialect
from doppel.i18n import tr
from doppel.transcript import Transcript


class CompletionStream:
    """Turns the events of one completion into tokens.

    Args:
        transcript: its tokenizer turns text into ids where the server sends none.
        stop_ids: of the request.
        dialect: the server's.
        sends_text: whether the events' texts are those of the tokens.
    """

    def __init__(
        self, transcript: Transcript, stop_ids: frozenset[int], dialect: Dialect, *, sends_text: bool = True
    ) -> None:
        self._transcript = transcript
        self._stop_ids = stop_ids
        self._dialect = dialect
        self._sends_text = sends_text
        self._hidden = transcript.forbidden_ids - stop_ids
        self._last: int | None = None
        self.is_finished = False
        """Whether the server has sent a finish reason."""

    def tokens(self, event: dict[str, Any]) -> list[Token]:
        """The tokens of an event. Raises EngineError when it cannot be parsed."""
        try:
            choice = next(iter(event.get("choices") or ()), None)
            if choice is None:  # the usage, at the end
                return []
            tokens = [token for token in self._tokens(choice) if token.id not in self._hidden]
            reason = choice.get("finish_reason")
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise EngineError(tr("cannot parse the server's response: {error}", error=repr(error)[:100])) from None
        if tokens:
            self._last = tokens[-1].id
        if reason is not None:
            self.is_finished = True
            if reason == "stop" and self._last not in self._stop_ids and self._stop_ids:
                tokens.append(Token(self._stop_token(), math.nan))  # which the server does not send
        return tokens

    def _tokens(self, choice: dict[str, Any]) -> list[Token]:
        text = choice.get("text") or ""
        details = choice.get("logprobs") or {}
        if self._dialect == "llamacpp":
            tokens = [_llamacpp_token(entry) for entry in details.get("content") or ()]
            # llama.cpp leaves out tokens that are parts of a character, and sends its text with the last of them.
            decode = self._transcript.safe_tokenizer.decode
            if not text or not self._sends_text or decode([token.id for token in tokens]) == text:
                return tokens
        elif ids := choice.get("token_ids") or _spelled_ids(details.get("tokens") or ()):
            logprobs = details.get("token_logprobs") or ()
            if len(logprobs) != len(ids):
                logprobs = [None] * len(ids)
            return [
                Token(int(token), math.nan, None if logprob is None else float(logprob))
                for token, logprob in zip(ids, logprobs, strict=True)
            ]
        return [Token(token, math.nan) for token in reply_ids(self._transcript.safe_tokenizer, text)]

    def _stop_token(self) -> int:
        eos = self._transcript.tokenizer.eos_token_id
        return eos if isinstance(eos, int) and eos in self._stop_ids else min(self._stop_ids)


def _llamacpp_token(entry: dict[str, Any]) -> Token:
    if "prob" in entry:
        return Token(int(entry["id"]), math.log(max(float(entry["prob"]), 1e-45)))
    return Token(int(entry["id"]), math.nan, float(entry["logprob"]))


def _spelled_ids(tokens: Sequence[str]) -> list[int]:
    """The ids in `token_id:123`, from versions of vLLM without `return_token_ids`."""
    prefix = "token_id:"
    return [int(token.removeprefix(prefix)) for token in tokens if token.startswith(prefix)]
