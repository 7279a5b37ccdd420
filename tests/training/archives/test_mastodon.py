"""Mastodon's outbox."""

from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from tests.training.exports import read_all, write_json
from training.archives.formats.html_text import html_text
from training.archives.mastodon import MastodonReader

ACTOR = "https://m.example/users/mara"
PUBLIC = "https://www.w3.org/ns/activitystreams#Public"


def created(number: int, content: str, to: list[str] | None = None, **more: Any) -> dict[str, Any]:
    note = {
        "id": f"{ACTOR}/statuses/{number}",
        "type": "Note",
        "published": f"2020-03-03T16:05:{number:02}Z",
        "to": [PUBLIC] if to is None else to,
        "cc": [],
        "content": content,
        **more,
    }
    return {
        "id": f"{note['id']}/activity",
        "type": "Create",
        "actor": ACTOR,
        "published": note["published"],
        "object": note,
    }


def outbox(*items: Any) -> dict[str, Any]:
    context = "https://www.w3.org/ns/activitystreams"
    return {
        "@context": context,
        "id": "outbox.json",
        "type": "OrderedCollection",
        "totalItems": 1,
        "orderedItems": items,
    }


def test_an_outbox(tmp_path: Path) -> None:
    mention = '<p><span class="h-card"><a href="x" class="u-url mention">@<span>tom</span></a></span> no &amp; yes</p>'
    boost = {
        "id": "b",
        "type": "Announce",
        "actor": ACTOR,
        "published": "2020-03-04T00:00:00Z",
        "to": [PUBLIC],
        "object": "https://o.example/1",
    }
    path = write_json(
        tmp_path / "outbox.json",
        outbox(
            created(1, "<p>Hello<br>world</p><p>again</p>"),
            created(2, mention, inReplyTo=f"{ACTOR}/statuses/1"),
            created(3, mention, to=["https://o.example/users/tom"]),
            boost,
            created(4, "<p>x</p>", attachment=[{"type": "Document"}], summary="food"),
        ),
    )
    messages, bad = read_all(path, [MastodonReader()])
    assert bad == []
    assert [(message.kind, message.text, message.mark) for message in messages] == [
        ("post", "Hello\nworld\n\nagain", ""),
        ("reply", "no & yes", ""),
        ("dm", "no & yes", ""),
        ("post", "", "retweet"),
        ("post", "food\nx", "media"),
    ]
    assert messages[1].reply_to == messages[0].id
    assert messages[2].chat == "https://o.example/users/tom"
    assert all(message.is_owner for message in messages)


@given(st.text())
@example("a <![0 b")  # looks like the beginning of a marked section
def test_any_html_becomes_text(text: str) -> None:
    assert isinstance(html_text(text), str)


def test_what_is_not_seen_is_no_text() -> None:
    assert html_text("<style>a{}</style><p>a <img alt=':)' src=x></p><script>1</script>") == "a :)"


def test_a_quote_names_the_post_and_does_not_repeat_its_address(tmp_path: Path) -> None:
    content = '<p class="quote-inline">RE: <a href="https://o.example/@tom/1">o.example</a></p><p>so true</p>'
    path = write_json(
        tmp_path / "outbox.json", outbox(created(1, content, quote="https://o.example/1"), created(2, "<p>RE: hi</p>"))
    )
    messages, _ = read_all(path, [MastodonReader()])
    assert [(message.kind, message.text, message.reply_to) for message in messages] == [
        ("quote", "so true", "https://o.example/1"),
        ("post", "RE: hi", None),
    ]


def test_a_post_that_speaks_to_somebody_opens_nothing(tmp_path: Path) -> None:
    mention = '<p><span class="h-card"><a href="x" class="u-url mention">@<span>tom</span></a></span> good morning</p>'
    path = write_json(tmp_path / "outbox.json", outbox(created(1, mention), created(2, "<p>tea with @tom</p>")))
    messages, _ = read_all(path, [MastodonReader()])
    assert [(message.kind, message.reply_to, message.text) for message in messages] == [
        ("reply", None, "@tom good morning"),
        ("post", None, "tea with @tom"),
    ]
