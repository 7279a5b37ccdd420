"""Prompts and replies as text, for servers that take or give no token ids.

A prompt's own marks are spelled out, for the server to read as the tokens they are; what people wrote is spelled
such that it reads as none of them. Knows no server.
"""

from collections.abc import Sequence
from itertools import groupby

from doppel.transcript.safe_tokens import SafeTokenizer


def prompt_text(tokenizer: SafeTokenizer, ids: Sequence[int]) -> str:
    """The text of a prompt. A spelling of a reserved token that somebody wrote is broken by a blank.

    Args:
        ids: as a transcript gives them; the token that begins every text is left out, as the server adds it.
    """
    if ids and ids[0] == tokenizer.tokenizer.bos_token_id:
        ids = ids[1:]
    # Blanks and line breaks are marks of ours where they are reserved at all: nobody else's text spells those.
    spellings = sorted(
        (text for one in tokenizer.reserved.values() if len(text := one.strip()) > 1), key=len, reverse=True
    )
    parts = []
    for is_reserved, run in groupby(ids, key=tokenizer.reserved.__contains__):
        text = tokenizer.decode(run)
        parts.append(text if is_reserved else _harmless(text, spellings))
    return "".join(parts)


def reply_ids(tokenizer: SafeTokenizer, text: str) -> list[int]:
    """A part of a reply as token ids of our tokenizer, without the markup tokens that the server spelled out."""
    text = tokenizer.strip_markup(text)
    return tokenizer.encode_text([text], "\n")[0] if text else []


def _harmless(text: str, spellings: Sequence[str]) -> str:
    """The text with every spelling of a reserved token broken."""
    changed = True
    while changed:  # breaking one may leave another
        changed = False
        for spelling in spellings:
            if spelling in text:
                text = text.replace(spelling, f"{spelling[0]} {spelling[1:]}")
                changed = True
    return text
