"""How a running chat becomes a prompt: how much of its history stays in view, and its header."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from doppel.transcript.base import Header, Turn, hour_bucket, weekday_name
from doppel.transcript.language import language_of


def messages_left_out(count: int, limit: int) -> int:
    """How many of a chat's first messages a prompt leaves out that shows at most the last `limit` of them.

    They are left out `limit // 4` at a time. In between successive prompts begin with the same messages, so that an
    engine can reuse its KV cache.

    Args:
        count: messages of the chat so far.
        limit: `reply.history` in config.yaml, at least 1.
    """
    step = max(1, limit // 4)
    return -(-max(0, count - limit) // step) * step


def header_language(languages: Sequence[str], kind: str | None, turns: Sequence[Turn]) -> str | None:
    """The language of a header: the persona's if it has only one, else that in which the others write.

    Never that of the persona's own turns: before a reply is written, nobody knows its language.

    Args:
        languages: that the persona writes in.
        kind: of the conversation; nobody else writes in a `post`.
        turns: of the conversation so far.
    """
    if len(languages) <= 1:
        return languages[0] if languages else None
    if kind == "post":
        return None
    found = language_of("\n".join(bubble for turn in turns if not turn.is_mine for bubble in turn.bubbles))
    return found if found in languages else None


def serving_header(
    vocabulary: Mapping[str, Sequence[str]],
    *,
    kind: str,
    now: datetime,
    zone: ZoneInfo,
    platform: str | None = None,
    contact: str | None = None,
    turns: Sequence[Turn] = (),
) -> Header:
    """The header for a turn generated now. Values that the training did not see are left out.

    Args:
        vocabulary: the values seen in training, by field.
        kind: `dm`, `group` or `post`.
        now: the time, with a time zone.
        zone: the owner's time zone (`config.zone`).
        platform: for example `telegram`.
        contact: pseudonym of the other person (`transcript.pseudonym`), in a conversation of two.
        turns: of the prompt.
    """
    local = now.astimezone(zone)
    fields = {
        "year": max(vocabulary.get("year", []), default=None),  # the owner's latest register
        "weekday": weekday_name(local.weekday()),
        "hour": hour_bucket(local.hour),
        "platform": platform,
        "kind": kind,
        "language": header_language(vocabulary.get("language", ()), kind, turns),
        "contact": contact,
    }
    return Header(**{field: value for field, value in fields.items() if value in vocabulary.get(field, ())})
