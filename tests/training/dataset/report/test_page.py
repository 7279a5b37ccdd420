"""The page of a build: counts that agree with the sessions, nothing from elsewhere, and no text that becomes markup."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.config import Config, parse_config
from doppel.errors import DoppelError
from doppel.i18n import set_language
from doppel.transcript import Header, Turn, normalize, render
from training.dataset.files import SESSIONS_FILE, Session, write_sessions
from training.dataset.report.build_report import LengthReport, OwnerReport, Report, SourceReport
from training.dataset.report.page import LengthSettings, build_page, length_settings, measure_lengths, write_report_page
from training.dataset.report.statistics import (
    EXAMPLE_COUNT,
    MAX_BUBBLES,
    DatasetStatistics,
    collect_statistics,
    estimate_tokens,
)
from training.lora.settings import planned_length

START = datetime(2020, 6, 1, 22, 30, tzinfo=UTC)  # a Monday; in Berlin it is Tuesday by then
BERLIN = ZoneInfo("Europe/Berlin")
SETTINGS = LengthSettings(count_tokens=estimate_tokens, counted_by="estimated", max_length=64, reason="why")


def session(number: int, *turns: tuple[str, str], hours: float = 0, **header: Any) -> Session:
    """A session of (speaker, messages by |), so many hours after START."""
    return Session(
        id=f"{number * 7919 % 1000:016x}",
        split="train",
        chat="Babelo",
        started_at=START + timedelta(hours=hours),
        header=Header(**{"kind": "dm", **header}),
        turns=tuple(Turn(speaker, tuple(text.split("|"))) for speaker, text in turns),
    )


def report(statistics: DatasetStatistics, **more: Any) -> Report:
    """A build's report that agrees with a statistics, with some messages dropped."""
    kept = statistics.own_messages + statistics.other_messages
    dropped = {"media": 30, "forward": 10}
    source = SourceReport(
        path="/home/somebody/a.zip", read=kept + 40, kept=kept, dropped=dropped, bad=0, bad_records=[], chats=[]
    )
    fields: dict[str, Any] = {
        "read": kept + 40,
        "kept": kept,
        "dropped": dropped,
        "bad": 0,
        "sources": {"telegram": source},
        "unknown_files": [],
        "sessions": {"train": statistics.sessions, "validation": 0, "test": 0},
        "owner": OwnerReport(accounts=["telegram: Mara Lind"], read=1, kept=1, first=START, last=START),
    }
    return Report(**{**fields, **more})


def body(text: str, title: str) -> str:
    """The section of a page with this title."""
    return text.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]


def bars(section: str) -> list[tuple[str, int, float, float]]:
    """Name, number, left edge and width in percent of each bar."""
    pattern = r'<td>([^<]*)</td><td>([\d,]+)</td><td><i style="margin-left:([\d.]+)%;width:([\d.]+)%">'
    return [
        (unescape(name), int(number.replace(",", "")), float(left), float(width))
        for name, number, left, width in re.findall(pattern, section)
    ]


def test_what_is_counted() -> None:
    sessions = [
        session(1, ("Tomo", "hi|there?"), ("me", "a|bcd|efgh"), ("Tomo", "ok"), ("me", "bye"), language="en"),
        session(2, ("me", "你好，今天过得怎么样"), hours=24 * 30, kind="post"),
        session(3, ("Rika", "x"), ("me", "|".join("nnnnnnnnnnnn")), hours=24 * 30),
    ]
    statistics = collect_statistics(sessions, BERLIN, lambda texts: [len(text) for text in texts])
    assert (statistics.sessions, statistics.own_messages, statistics.other_messages) == (3, 17, 4)
    assert statistics.months == {(2020, 6): 7, (2020, 7): 14}
    assert statistics.hours == {(1, 0): 4, (3, 0): 13}
    assert statistics.contacts == {"Tomo": 3, "Rika": 1}
    assert statistics.lengths == {0: 13, 1: 2, 2: 1, 3: 1}
    assert statistics.bubbles == {3: 1, 1: 2, MAX_BUBBLES: 1}
    assert statistics.languages == {"en": 4, "zh": 1, "": 12}
    assert statistics.tokens == Counter(len(render(session.header, session.turns)) for session in sessions)


SPOKEN = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["me", "Tomo", "Rika"]), st.text(min_size=1, max_size=40).filter(normalize)),
        min_size=1,
        max_size=8,
    ),
    min_size=1,
    max_size=20,
)


@given(SPOKEN, st.booleans())
def test_every_message_counts_once_whatever_it_says(talks: list[list[tuple[str, str]]], as_chinese: bool) -> None:
    sessions = [
        msgspec.structs.replace(
            session(number, hours=number * 100), turns=tuple(Turn(speaker, (text,)) for speaker, text in turns)
        )
        for number, turns in enumerate(talks)
    ]
    statistics = collect_statistics(sessions, BERLIN, estimate_tokens)
    everything = [speaker for turns in talks for speaker, _ in turns]
    assert statistics.own_messages + statistics.other_messages == len(everything) == statistics.months.total()
    assert statistics.own_messages == everything.count("me") == statistics.hours.total() == statistics.lengths.total()
    assert statistics.languages.total() == statistics.own_messages
    assert statistics.tokens.total() == len(talks)
    set_language("zh" if as_chinese else "en")
    text = build_page("me", report(statistics), statistics, SETTINGS)
    shown = re.findall(r'<pre class="session">(.*?)</pre>', text, re.DOTALL)
    assert sorted(map(unescape, shown)) == sorted(
        render(example.header, example.turns) for example in statistics.examples
    )
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_the_sessions_are_read_once_and_not_kept() -> None:
    alive = 0

    class Seen(str):
        """A message that tells when it is gone."""

        def __new__(cls, text: str) -> "Seen":
            nonlocal alive
            alive += 1
            return super().__new__(cls, text)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def many() -> Iterator[Session]:
        for number in range(500):
            assert alive < 40
            made = session(number, ("me", "x"))
            yield msgspec.structs.replace(made, turns=(Turn("me", (Seen(f"message {number}"),)),))

    assert collect_statistics(many(), BERLIN, estimate_tokens).sessions == 500


def test_tokens_are_counted_in_small_batches() -> None:
    sizes: list[int] = []

    def count_tokens(texts: Sequence[str]) -> list[int]:
        sizes.append(sum(map(len, texts)))
        return [10_000 + len(text) for text in texts]

    statistics = collect_statistics((session(n, ("me", "x" * 300_000)) for n in range(20)), BERLIN, count_tokens)
    assert max(sizes) < 2_000_000
    assert len(sizes) > 1
    assert statistics.tokens.total() == 20


def test_lengths_that_sessions_do_not_exceed() -> None:
    statistics = DatasetStatistics(sessions=100, tokens=Counter({10: 50, 20: 45, 3000: 5}))
    assert [statistics.length_quantile(share) for share in (0.1, 0.5, 0.51, 0.95, 0.96, 1)] == [
        10,
        10,
        20,
        20,
        3000,
        3000,
    ]
    assert [statistics.share_within(length) for length in (9, 10, 25, 3000)] == [0, 0.5, 0.95, 1]


def test_long_sessions_do_not_make_the_counts_grow() -> None:
    statistics = collect_statistics((session(n, ("me", "x")) for n in range(20_000)), BERLIN, _growing())
    assert len(statistics.tokens) < 9000
    assert statistics.length_quantile(1) == pytest.approx(20_000 * 50, rel=0.001)


def _growing() -> Any:
    number = iter(range(1, 10**9))
    return lambda texts: [50 * next(number) for _ in texts]


def test_examples_are_of_every_kind_readable_and_the_same_each_time() -> None:
    kinds = ["dm", "group", "post", "reply", "quote"]
    sessions = [session(n, ("me", "long " * 200 if n % 2 else f"short {n}"), kind=kinds[n % 5]) for n in range(100)]
    examples = collect_statistics(sessions, BERLIN, estimate_tokens).examples
    assert len(examples) == EXAMPLE_COUNT
    assert Counter(example.header.kind for example in examples) == dict.fromkeys(kinds, 2)
    assert all(example.turns[0].bubbles[0].startswith("short") for example in examples)
    assert collect_statistics(reversed(sessions), BERLIN, estimate_tokens).examples == examples
    few = [session(n, ("me", "long " * 200)) for n in range(3)]
    assert len(collect_statistics(few, BERLIN, estimate_tokens).examples) == 3


def test_the_page_shows_the_way_from_read_to_kept() -> None:
    statistics = collect_statistics(
        [session(n, ("Tomo", "hi"), ("me", "yes")) for n in range(30)], BERLIN, estimate_tokens
    )
    text = build_page("mara", report(statistics), statistics, SETTINGS)
    assert bars(body(text, "Messages read and kept")) == [
        ("read", 100, 0, 100),
        ("media without text", 30, 70, 30),
        ("forwarded", 10, 60, 10),
        ("kept", 60, 0, 60),
    ]
    assert bars(body(text, "Who you write with")) == [("Tomo", 30, 0, 100)]
    assert "Tue 00:00 · 30" in body(text, "When you write")
    assert "<title>2020-06: 60</title>" in body(text, "When you write")
    assert "<dd>64 tokens</dd>" in body(text, "Length of sessions")
    assert "<dd>100.0%</dd>" in body(text, "Length of sessions")
    assert text.count('<pre class="session">') == EXAMPLE_COUNT
    assert "Silence" not in text


def test_the_page_needs_nothing_from_elsewhere_and_gives_no_names_away() -> None:
    evil = '</pre><script src="https://example.org/x.js"></script><img src=x onerror=alert(1)>'
    statistics = collect_statistics([session(1, ("Tomo", evil), ("me", evil))], BERLIN, estimate_tokens)
    text = build_page("<b>", report(statistics), statistics, SETTINGS)
    assert re.findall(r"<(?:script|img|link|iframe|object|base)\b|@import|url\(", text) == []
    assert re.findall(r"<[^>]*\b(?:src|href|on\w+)\s*=", text) == []
    assert "prefers-color-scheme: dark" in text
    for private in ("Mara Lind", "somebody"):
        assert private not in text


@pytest.mark.parametrize("hours", [[0], [0, 24 * 400], [0, 24 * 365 * 5], [0, 24 * 365 * 45]])
def test_every_month_has_its_column_until_there_are_too_many(hours: list[int]) -> None:
    statistics = collect_statistics(
        [session(n, ("me", "x"), hours=at) for n, at in enumerate(hours)], BERLIN, estimate_tokens
    )
    drawing = body(build_page("me", report(statistics), statistics, SETTINGS), "When you write").split("</figure>")[0]
    columns = re.findall(r"<title>(\d{4})(?:-\d\d)?: (\d+)</title>", drawing)
    assert sum(int(count) for _, count in columns) == len(hours)
    assert len(columns) <= 240
    assert 1 <= drawing.count('text-anchor="middle"') <= 20
    first, last = (START + timedelta(hours=at) for at in (hours[0], hours[-1]))
    assert {columns[0][0], columns[-1][0]} == {str(first.year), str(last.year)}


def test_gaps_are_shown_where_the_report_has_them() -> None:
    statistics = collect_statistics([session(1, ("me", "x"))], BERLIN, estimate_tokens)
    gaps = {"telegram:a": 1800.0, "telegram:b": 5400.0, "twitter:c": 5460.0}
    section = body(build_page("me", report(statistics, gaps=gaps), statistics, SETTINGS), "Silence that ends a session")
    assert re.findall(r"<dd>(\d+) min</dd>", section) == ["30", "90", "91"]
    assert re.findall(r"<title>(\S+): (\d+)</title>", section) == [
        ("0–30", "1"),
        ("30–60", "0"),
        ("60–90", "1"),
        ("90–120", "1"),
    ]


def test_lengths_and_what_is_chosen_for_them() -> None:
    statistics = DatasetStatistics(sessions=100, tokens=Counter({10: 50, 20: 45, 3000: 5}))
    lengths = measure_lengths(statistics, SETTINGS)
    assert lengths == LengthReport(
        median=10,
        percentile_95=20,
        longest=3000,
        max_length=64,
        max_length_reason="why",
        share_within=0.95,
        counted_by="estimated",
    )
    given = msgspec.structs.replace(SETTINGS, max_length=4096, reason=None)
    lengths = measure_lengths(statistics, given)
    assert lengths is not None
    assert (lengths.max_length_reason, lengths.share_within) == ("set in config.yaml", 1)
    assert measure_lengths(DatasetStatistics(), SETTINGS) is None


def measured(config: Config) -> LengthSettings:
    length = planned_length(config.training, config.model.device)
    return length_settings(config.model, length.value, length.reason)


def test_measured_by_bytes_without_a_base_and_with_its_tokenizer_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    monkeypatch.setenv("DOPPEL_CACHE", str(tmp_path / "empty"))
    config = parse_config({"model": {"device": "cpu"}}, tmp_path / "config.yaml")
    guess = measured(config)
    assert guess.count_tokens is estimate_tokens
    assert guess.counted_by.startswith("estimated")
    assert guess.max_length == 1024

    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"")
    (base / "tokenizer.json").write_text("damaged")
    own = {"model": {"device": "cpu", "base": str(base)}, "training": {"max_length": 100}}
    assert measured(parse_config(own, tmp_path / "config.yaml")).count_tokens is estimate_tokens
    tokenizer = Tokenizer(WordLevel({"a": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(base / "tokenizer.json"))
    measure = measured(parse_config(own, tmp_path / "config.yaml"))
    assert measure.count_tokens(["a b c", "a"]) == [3, 1]
    assert measure.counted_by.startswith("counted")
    assert (measure.max_length, measure.reason) == (100, None)
    (base / "model.safetensors").unlink()  # what `doppel train` refuses does not keep the page from being made
    assert measured(parse_config(own, tmp_path / "config.yaml")).count_tokens is estimate_tokens


def test_files_left_unread_are_counted_by_kind_and_not_named() -> None:
    statistics = collect_statistics([session(1, ("me", "x"))], BERLIN, estimate_tokens)
    names = ["a/Ana.json", "b/Ana.JSON", "odd"]
    text = build_page(
        "me", report(statistics, unknown_files=names, unknown_count=3, attachment_count=1200), statistics, SETTINGS
    )
    assert "Files of unknown format, not read: 3 (.json 2, no extension 1). They are listed in report.json." in text
    assert "not read: 1,200" in text
    assert "Ana" not in text
    assert "not read" not in build_page("me", report(statistics), statistics, SETTINGS)


def test_one_sided_messages_are_counted() -> None:
    statistics = collect_statistics([session(1, ("me", "x"))], BERLIN, estimate_tokens)
    text = build_page("me", report(statistics, one_sided=1234), statistics, SETTINGS)
    assert "Messages of yours without what others wrote: 1,234." in text
    assert "without what others wrote" not in build_page("me", report(statistics), statistics, SETTINGS)


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config({"timezone": "Europe/Berlin", "language": "zh"}, tmp_path / "config.yaml")
    config.data_dir.mkdir(parents=True)
    write_sessions(config.data_dir / SESSIONS_FILE, [session(1, ("me", "x"))])
    statistics = collect_statistics([session(1, ("me", "x"))], BERLIN, estimate_tokens)
    set_language("zh")
    measured = write_report_page(config.data_dir, "me", config.zone, report(statistics), SETTINGS)
    path, figures = (config.data_dir / name for name in ("report.html", "report.json"))
    before = path.read_text(encoding="utf-8")
    assert measured == report(statistics, lengths=measure_lengths(statistics, SETTINGS))
    assert msgspec.json.decode(figures.read_bytes(), type=Report) == measured
    assert '<html lang="zh">' in before

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DoppelError, match=r"report\.html"):
        write_report_page(config.data_dir, "me", config.zone, report(statistics), SETTINGS)
    assert path.read_text(encoding="utf-8") == before
    assert sorted(path.name for path in config.data_dir.iterdir()) == ["report.html", "report.json", "sessions.jsonl"]
