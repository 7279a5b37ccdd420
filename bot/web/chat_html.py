"""A chat as HTML: bubbles by writer, posts between them, a line for every new day. Escapes all that anybody wrote.

Knows entries of the store and nothing of pages or servers; `page.css` gives it its looks.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from html import escape
from zoneinfo import ZoneInfo

from bot.store.inbox import HistoryMessage
from doppel.i18n import tr


def render_chat(entries: Sequence[HistoryMessage], zone: ZoneInfo, name: str, *, typing: bool) -> str:
    """The messages, oldest first, and three dots while the persona `name` is typing."""
    parts = list(_messages(entries, zone))
    if not entries and not typing:
        parts.append(f'<p class="empty">{escape(tr("Say something to {name}.", name=name))}</p>')
    if typing:
        label = escape(tr("{name} is typing", name=name))
        parts.append(
            f'<div class="bubble theirs typing" role="status" aria-label="{label}"><i></i><i></i><i></i></div>'
        )
    # The outer element is filled from its end, so a browser keeps the newest in view without a script.
    return f'<div class="scroll"><div class="messages" role="log" aria-live="polite">{"".join(parts)}</div></div>'


def _messages(entries: Sequence[HistoryMessage], zone: ZoneInfo) -> Iterator[str]:
    day: date | None = None
    for position, entry in enumerate(entries):
        at = entry.at.astimezone(zone)
        if at.date() != day:
            day = at.date()
            yield f'<p class="day">{day.isoformat()}</p>'
        text = escape(entry.text)
        time = f" <time>{at:%H:%M}</time>"
        if entry.kind == "post":
            yield f'<div class="post"><span>{escape(tr("post"))}</span>{text}{time}</div>'
            continue
        following = entries[position + 1] if position + 1 < len(entries) else None
        last = following is None or following.kind == "post" or (following.sender is None) != (entry.sender is None)
        side = "theirs" if entry.sender is None else "mine"
        yield f'<div class="bubble {side}{" last" if last else ""}">{text}{time if last else ""}</div>'
