"""A chat as HTML."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from bot.store.inbox import HistoryMessage
from bot.web.chat_html import render_chat

START = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)


def said(text: str, *, mine: bool = False, minutes: int = 0, post: bool = False) -> HistoryMessage:
    kind = "post" if post else "reply" if not mine else None
    at = START + timedelta(minutes=minutes)
    return HistoryMessage(sender="me" if mine else None, text=text, at=at, kind=kind, adapter=None)


def drawn(*entries: HistoryMessage, typing: bool = False) -> str:
    return render_chat(entries, ZoneInfo("UTC"), "Mira", typing=typing)


def test_nothing_written_can_be_markup() -> None:
    page = drawn(said("<script>alert(1)</script> & <b>", mine=True), said("<img src=x>", post=True))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in page


def test_sides_ends_of_turns_and_times() -> None:
    page = drawn(said("a", mine=True), said("b"), said("c", minutes=1))
    assert '<div class="bubble mine last">a <time>22:30</time></div>' in page
    assert '<div class="bubble theirs">b</div><div class="bubble theirs last">c <time>22:31</time></div>' in page


def test_new_days_are_marked_in_the_owners_zone() -> None:
    page = render_chat([said("a"), said("b", minutes=120)], ZoneInfo("Asia/Tokyo"), "Mira", typing=False)
    assert page.count('class="day"') == 1
    assert "2026-03-03" in page
    assert drawn(said("a"), said("b", minutes=120)).count('class="day"') == 2


def test_typing_and_the_empty_chat() -> None:
    assert "Say something to Mira." in drawn()
    typing = drawn(typing=True)
    assert 'aria-label="Mira is typing"' in typing
    assert "Say something" not in typing


def test_name_is_escaped() -> None:
    assert "<i>x" not in render_chat([], ZoneInfo("UTC"), "<i>x", typing=True).replace("<i></i>", "")
