"""Tokenizes the parts of a transcript one by one, so that nobody's text can become a special or added token."""

import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from doppel.errors import UserError
from doppel.i18n import tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MAX_CACHED = 20_000
_MAX_CACHED_LENGTH = 400
"""Texts up to this many characters are remembered: the prompts of a chat hold the same messages again and again."""

_BYTE = re.compile("<0x[0-9A-F]{2}>")  # how tokenizers spell a bare byte; some read the spelling as the byte


class SafeTokenizer:
    """Tokenizes what people wrote without ever producing a reserved token.

    Args:
        tokenizer: a fast transformers tokenizer.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self._cache: dict[tuple[str, str], tuple[int, ...]] = {}
        added = tokenizer.added_tokens_decoder  # a property that rebuilds its dictionary on every access
        # Single characters that a tokenizer adds as plain text are exempt. The token for unknown characters is
        # reserved: such a character is dropped, because it could not be decoded again.
        self.reserved: dict[int, str] = {
            token_id: token.content for token_id, token in added.items() if token.special or len(token.content) > 1
        }
        """Tokens that nobody's text may become, with their spellings: all special and added ones."""
        eos = tokenizer.eos_token_id
        ends = {eos} if isinstance(eos, int) else set()
        self.special: frozenset[int] = frozenset(
            ends | {token_id for token_id in self.reserved if added[token_id].special}
        )
        """Tokens that stand for no text: one that is generated ends the turn."""
        self.markup: frozenset[int] = self.special.union(
            token_id for token_id, text in self.reserved.items() if not _is_blank(text)
        )
        """Tokens that are markup, not text: every special one, and every added one that is more than blanks.

        Runs of blanks and line breaks, which Gemma and others list as added tokens, are text.
        """

    def encode_text(self, texts: list[str], context: str = "") -> list[list[int]]:
        """Tokenizes texts one by one, with no reserved token among the ids.

        Args:
            texts: what people wrote.
            context: text that each of them follows, such that a tokenizer adds no blank; none: it may.
        """
        cache = self._cache
        known = {text: cached for text in texts if (cached := cache.get((context, text))) is not None}
        if missing := [text for text in dict.fromkeys(texts) if text not in known]:
            if len(cache) + len(missing) > _MAX_CACHED:
                cache.clear()
            for text, ids in zip(missing, self._encode(missing, context), strict=True):
                known[text] = tuple(ids)
                if len(text) <= _MAX_CACHED_LENGTH:
                    cache[context, text] = known[text]
        return [list(known[text]) for text in texts]

    def _encode(self, texts: list[str], context: str) -> list[list[int]]:
        before, *found = self._ids([context, *(context + text for text in texts)])
        return [
            ids[len(before) :]
            if ids[: len(before)] == before and self._is_harmless(text, ids)
            else self._cut(text, context)
            for text, ids in zip(texts, found, strict=True)
        ]

    def encode_markup(self, text: str, context: str = "") -> list[int]:
        """Tokenizes the transcript's own markup, which follows `context`; spelled special tokens become tokens."""
        forms = [context, context + text, text, context + text + "a"]
        before, both, alone, followed = self._ids(forms, split_special=False)
        word = self.encode_text(["a"], "\n")[0]
        if followed[: len(before)] == before and followed[-len(word) :] == word:
            return followed[len(before) : -len(word)]
        return both[len(before) :] if both[: len(before)] == before else alone

    def line_end(self, text: str) -> list[int]:
        """Ids of one or two line breaks. Raises UserError for a tokenizer that loses them."""
        ids = self._following("a", text)
        if self.decode(ids) != text:
            raise UserError(tr("model.base: this model's tokenizer loses line breaks; choose another base model"))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids as it is, special tokens spelled out."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def strip_markup(self, text: str) -> str:
        """The text without the spellings of markup tokens, for text that a server made of tokens."""
        spellings, first_characters = self._markup_spellings
        if first_characters.isdisjoint(text):
            return text
        for spelling in spellings:
            text = text.replace(spelling, "")
        return text

    @cached_property
    def _markup_spellings(self) -> tuple[list[str], frozenset[str]]:
        """Spellings of markup tokens, longest first, and the characters that they begin with."""
        texts = (self.reserved.get(token, "") for token in self.markup)
        spellings = sorted((text for text in texts if len(text) > 1), key=len, reverse=True)
        return spellings, frozenset(text[0] for text in spellings)

    def _cut(self, text: str, context: str) -> list[int]:
        """Tokenizes text that may spell a reserved token or a byte: the spelling is cut in two.

        A single character that is itself a reserved token is left out.
        """
        ids = self._following(context, text)
        if self._is_harmless(text, ids):
            return ids
        if len(text) < 2:
            return []
        starts = [text.index(spelling) for spelling in self.reserved.values() if len(spelling) > 1 and spelling in text]
        starts += [byte.start() for byte in _BYTE.finditer(text)]
        at = min(starts) + 1 if starts else len(text) // 2
        return self._cut(text[:at], context) + self._cut(text[at:], "\n")

    def _is_harmless(self, text: str, ids: list[int]) -> bool:
        return self.reserved.keys().isdisjoint(ids) and not _BYTE.search(text)

    def _following(self, context: str, text: str) -> list[int]:
        """Ids of `text` without the blank that many tokenizers begin a text with, if it follows some `context`."""
        before, both, alone = self._ids([context, context + text, text])
        return both[len(before) :] if both[: len(before)] == before else alone

    def _ids(self, texts: list[str], *, split_special: bool = True) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=split_special)[
            "input_ids"
        ]
        return ids


def _is_blank(text: str) -> bool:
    """Whether a token is nothing but blanks and line breaks, also as SentencePiece spells blanks."""
    return not text.replace("\u2581", " ").strip()
