"""Prompts and replies as text, for servers without token ids.

The prompt's reserved tokens are spelled out, and the server tokenizes them back; in what people wrote, every such
spelling is broken.
"""

from collections.abc import Sequence
from itertools import groupby

from doppel.transcript.safe_tokens import SafeTokenizer


def prompt_text(tokenizer: SafeTokenizer, ids: Sequence[int]) -> str:
    """The text of a prompt. Where somebody wrote the spelling of a reserved token, a blank breaks it.

    Args:
        ids: a prompt from a transcript. A BOS token is left out, as the server adds its own.
    """
    if ids and ids[0] == tokenizer.tokenizer.bos_token_id:
        ids = ids[1:]
    # Reserved blanks and line breaks only come from the transcript itself.
    spellings = sorted(
        (text for spelling in tokenizer.reserved.values() if len(text := spelling.strip()) > 1), key=len, reverse=True
    )
    parts = []
    for is_reserved, run in groupby(ids, key=tokenizer.reserved.__contains__):
        text = tokenizer.decode(run)
        parts.append(text if is_reserved else _break_spellings(text, spellings))
    return "".join(parts)


def reply_ids(tokenizer: SafeTokenizer, text: str) -> list[int]:
    """Part of a reply as ids of our tokenizer, without spelled-out markup tokens."""
    text = tokenizer.strip_markup(text)
    return tokenizer.encode_text([text], "\n")[0] if text else []


def _break_spellings(text: str, spellings: Sequence[str]) -> str:
    """The text with a blank inside every spelling of a reserved token."""
    changed = True
    while changed:  # breaking one may create another
        changed = False
        for spelling in spellings:
            if spelling in text:
                text = text.replace(spelling, f"{spelling[0]} {spelling[1:]}")
                changed = True
    return text
