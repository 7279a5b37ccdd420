"""What a server streams back as tokens: ids where it gives them, else its text in our tokenizer's tokens.

Knows one completion; knows no connection.
"""

import math
from collections.abc import Sequence
from typing import Any

from doppel.engine import EngineError, Token
from doppel.engine.remote.prompt_text import reply_ids
from doppel.engine.remote.sampling import Dialect
from doppel.i18n import tr
from doppel.transcript import Transcript


class Reader:
    """Turns the events of one completion into tokens.

    Args:
        transcript: its tokenizer turns text into ids where the server gives none.
        stop_ids: of the request.
        dialect: whose events they are.
        spells: whether the texts in them are those of the tokens.
    """

    def __init__(
        self, transcript: Transcript, stop_ids: frozenset[int], dialect: Dialect, *, spells: bool = True
    ) -> None:
        self._transcript = transcript
        self._stop_ids = stop_ids
        self._dialect = dialect
        self._spells = spells
        self._hidden = transcript.forbidden_ids - stop_ids
        self._last: int | None = None
        self.is_finished = False
        """Whether the server said that this is all."""

    def read(self, event: dict[str, Any]) -> list[Token]:
        """The tokens of an event. Raises EngineError for one that is none of the protocol's."""
        try:
            choice = next(iter(event.get("choices") or ()), None)
            if choice is None:  # a count of tokens, at the end
                return []
            tokens = [token for token in self._tokens(choice) if token.id not in self._hidden]
            reason = choice.get("finish_reason")
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise EngineError(tr("the server's answer cannot be read: {error}", error=repr(error)[:100])) from None
        if tokens:
            self._last = tokens[-1].id
        if reason is not None:
            self.is_finished = True
            if reason == "stop" and self._last not in self._stop_ids and self._stop_ids:
                tokens.append(Token(self._end(), math.nan))  # the end itself is not sent
        return tokens

    def _tokens(self, choice: dict[str, Any]) -> list[Token]:
        text = choice.get("text") or ""
        details = choice.get("logprobs") or {}
        if self._dialect == "llamacpp":
            found = [_llamacpp_token(one) for one in details.get("content") or ()]
            # Tokens that are parts of a character are not sent, only the character with the last of them.
            if (
                not text
                or not self._spells
                or self._transcript.safe_tokenizer.decode([token.id for token in found]) == text
            ):
                return found
        elif ids := choice.get("token_ids") or _spelled_ids(details.get("tokens") or ()):
            chances = details.get("token_logprobs") or ()
            known = chances if len(chances) == len(ids) else [None] * len(ids)
            return [
                Token(int(token), math.nan, None if chance is None else float(chance))
                for token, chance in zip(ids, known, strict=True)
            ]
        return [Token(token, math.nan) for token in reply_ids(self._transcript.safe_tokenizer, text)]

    def _end(self) -> int:
        end = self._transcript.tokenizer.eos_token_id
        return end if isinstance(end, int) and end in self._stop_ids else min(self._stop_ids)


def _llamacpp_token(one: dict[str, Any]) -> Token:
    if "prob" in one:
        return Token(int(one["id"]), math.log(max(float(one["prob"]), 1e-45)))
    return Token(int(one["id"]), math.nan, float(one["logprob"]))


def _spelled_ids(tokens: Sequence[str]) -> list[int]:
    """vLLM's `token_id:123`, from versions that know no `return_token_ids`."""
    mark = "token_id:"
    return [int(one.removeprefix(mark)) for one in tokens if one.startswith(mark)]
