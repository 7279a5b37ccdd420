"""The chat as HTML."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from bot.store.inbox import HistoryMessage
from bot.web.chat_html import render_chat

START = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)


def message(
    text: str, *, mine: bool = False, minutes: int = 0, post: bool = False, turn: int | None = 1
) -> HistoryMessage:
    """A message of the visitor (`mine`) or of the persona, `minutes` after the start."""
    at = START + timedelta(minutes=minutes)
    if mine:
        return HistoryMessage(sender="me", text=text, at=at, kind=None, turn=None, adapter=None)
    return HistoryMessage(sender=None, text=text, at=at, kind="post" if post else "reply", turn=turn, adapter=None)


def render(*messages: HistoryMessage, typing: bool = False) -> str:
    return render_chat(messages, ZoneInfo("UTC"), "Mira", typing=typing)


def test_messages_are_escaped() -> None:
    page = render(message("<script>alert(1)</script> & <b>", mine=True), message("<img src=x>", post=True))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in page


def test_last_bubble_of_a_side_has_the_time() -> None:
    page = render(message("a", mine=True), message("b"), message("c", minutes=1))
    assert '<div class="bubble mine last">a <time>22:30</time></div>' in page
    assert '<div class="bubble theirs">b</div><div class="bubble theirs last">c <time>22:31</time></div>' in page


def test_bubbles_of_one_post_share_a_label() -> None:
    page = render(message("a", post=True), message("b", post=True, minutes=1), message("c", post=True, turn=2))
    assert page.count('class="label"') == 2
    assert '<div class="label">Post <time>22:31</time></div><p>a</p><p>b</p>' in page


def test_new_days_are_marked_in_the_owners_zone() -> None:
    page = render_chat([message("a"), message("b", minutes=120)], ZoneInfo("Asia/Tokyo"), "Mira", typing=False)
    assert page.count('class="day"') == 1
    assert "2026-03-03" in page
    assert render(message("a"), message("b", minutes=120)).count('class="day"') == 2


def test_typing_and_the_empty_chat() -> None:
    assert "Say something to Mira." in render()
    typing = render(typing=True)
    assert 'aria-label="Mira is typing"' in typing
    assert "Say something" not in typing


def test_name_is_escaped() -> None:
    assert "<i>x" not in render_chat([], ZoneInfo("UTC"), "<i>x", typing=True).replace("<i></i>", "")
