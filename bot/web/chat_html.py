"""Renders a chat as HTML: bubbles, posts between them, a line for each new day. Escapes everything people wrote."""

from collections.abc import Iterator, Sequence
from datetime import date
from html import escape
from itertools import groupby
from zoneinfo import ZoneInfo

from bot.store.inbox import HistoryMessage
from doppel.i18n import tr


def render_chat(messages: Sequence[HistoryMessage], zone: ZoneInfo, name: str, *, typing: bool) -> str:
    """The messages, oldest first; `typing` adds three moving dots on the side of the persona `name`."""
    if not messages and not typing:
        return f'<div class="empty"><p>{escape(tr("Say something to {name}.", name=name))}</p></div>'
    parts = list(_render_days(messages, zone))
    if typing:
        label = escape(tr("{name} is typing", name=name))
        parts.append(
            f'<div class="bubble theirs typing" role="status" aria-label="{label}"><i></i><i></i><i></i></div>'
        )
    # The outer element is laid out from its end, so that the browser keeps the newest message in view without a script.
    return f'<div class="scroll"><div class="messages" role="log" aria-live="polite">{"".join(parts)}</div></div>'


def _render_days(messages: Sequence[HistoryMessage], zone: ZoneInfo) -> Iterator[str]:
    def group_key(message: HistoryMessage) -> tuple[date, str | None, bool, int | None]:
        """Equal for consecutive messages that belong together: the bubbles of one post, or of one side of the chat."""
        is_post = message.kind == "post"
        return (
            message.at.astimezone(zone).date(),
            message.kind if is_post else None,
            message.sender is None,
            message.turn if is_post else None,
        )

    day: date | None = None
    for (message_day, kind, is_persona, _), group in groupby(messages, group_key):
        if message_day != day:
            day = message_day
            yield f'<p class="day">{day.isoformat()}</p>'
        bubbles = list(group)
        time = f"<time>{bubbles[-1].at.astimezone(zone):%H:%M}</time>"
        yield _render_post(bubbles, time) if kind == "post" else _render_bubbles(bubbles, time, is_persona)


def _render_post(bubbles: Sequence[HistoryMessage], time: str) -> str:
    paragraphs = "".join(f"<p>{escape(bubble.text)}</p>" for bubble in bubbles)
    return f'<div class="post"><div class="label">{escape(tr("Post"))} {time}</div>{paragraphs}</div>'


def _render_bubbles(bubbles: Sequence[HistoryMessage], time: str, is_persona: bool) -> str:
    side = "theirs" if is_persona else "mine"
    *others, last = [escape(bubble.text) for bubble in bubbles]
    before = "".join(f'<div class="bubble {side}">{text}</div>' for text in others)
    return f'{before}<div class="bubble {side} last">{last} {time}</div>'
