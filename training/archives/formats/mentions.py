"""Recognizes public posts that are addressed to somebody."""

import re

_ADDRESS = re.compile(r"\s*\.?\s?[@\uff20](?!\d+(?:[ap]m|h|:\d\d)?\b)\w", re.IGNORECASE)


def begins_with_mention(text: str) -> bool:
    """Whether a post begins with `@name` or `.@name`.

    It speaks to somebody, like a reply whose parent is unknown; a time such as `@5pm` is no name.
    """
    return _ADDRESS.match(text) is not None
