"""Charts are valid SVG with axes that hold every point, and the page is complete in itself."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doppel.reports.charts import Bar, Scale, TableBar, bar_chart, bar_table, grouped_bar_chart, heat_map, line_chart
from doppel.reports.html import Section, charts, figures, page, table, with_sections

FINITE = st.floats(-1e300, 1e300)


def dots(figure: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in figure.iter("circle")]


def test_points_lie_where_the_axes_say() -> None:
    points = [(10, 2.0), (20, 1.0), (30, 4.0)]
    figure = ElementTree.fromstring(line_chart("a < b", "step", points, show_values=True))
    assert figure.findtext("figcaption") == "a < b"
    (x1, y1), (x2, y2), (x3, y3) = dots(figure)
    assert x1 < x2 < x3
    assert x3 - x2 == pytest.approx(x2 - x1, abs=0.2)
    assert y3 < y1 < y2  # upwards is less, in SVG
    ticks = {text.text: float(text.attrib["y"]) - 5 for text in figure.iter("text")}
    assert ticks["2.0" if "2.0" in ticks else "2"] == pytest.approx(y1, abs=0.2)
    assert [title.text for title in figure.iter("title")] == ["step 10: 2", "step 20: 1", "step 30: 4"]
    assert [text.text for text in figure.iter("text") if text.attrib.get("class") == "lowest"] == ["1"]


@given(
    st.lists(st.floats(-1e9, 1e9, allow_nan=False) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=60),
    st.booleans(),
    st.booleans(),
)
@example([5e-324], False, False)
def test_the_drawing_stays_in_its_frame_for_any_numbers(values: list[float], noisy: bool, marked: bool) -> None:
    points = list(enumerate(values))
    drawn = line_chart("t", "step", points, is_noisy=noisy, show_values=marked)
    if not any(map(math.isfinite, values)):
        assert drawn == ""
        return
    figure = ElementTree.fromstring(drawn)
    for line in figure.iter("polyline"):
        for x, y in re.findall(r"(\S+),(\S+)", line.attrib["points"]):
            assert 60 <= float(x) <= 640
            assert 10 <= float(y) <= 240
    assert len(list(figure.iter("text"))) < 20


def test_a_long_training_stays_a_small_drawing() -> None:
    points = [(step, 2 + math.sin(step)) for step in range(100_000)]
    assert len(line_chart("loss", "step", points, is_noisy=True)) < 20_000


def test_small_numbers_are_readable() -> None:
    points = [(1, 0.0), (2, 5e-4)]
    assert ">0.0005<" in line_chart("learning rate", "step", points)


def labels_of(scale: Scale) -> list[str]:
    return [tick.label for tick in scale.ticks]


@given(st.lists(FINITE, min_size=1, max_size=5), st.booleans(), st.booleans())
@example([1.3001, 1.3004], False, True)  # bits per byte near the end of a training
@example([1.3, 1.3], False, True)  # nothing but one value
@example([0.0], False, True)
@example([0, 0], True, False)
@example([5e-324, -5e-324], False, True)
@example([-1e300, 1e300], False, True)
@example([1e9, 1e9 + 2], False, True)
@example([-2.5, -2.4999], False, True)
@example([0, 7], True, False)
@example([0, 12], True, False)
def test_tick_labels_are_distinct_ascending_and_on_the_axis(
    values: list[float], is_whole: bool, is_rounded: bool
) -> None:
    if is_whole:
        values = [0, *(abs(value) // 1 for value in values)]
    scale = Scale(values, 200, 20, is_whole=is_whole, is_rounded=is_rounded)
    numbers = [float(label.replace(",", "")) for label in labels_of(scale)]
    assert numbers == sorted(set(numbers))
    assert len(set(labels_of(scale))) == len(numbers) >= 2
    for number, tick in zip(numbers, scale.ticks, strict=True):
        assert number == pytest.approx(tick.value, rel=1e-9, abs=1e-300)
        assert scale.low <= tick.value <= scale.high
        assert not is_whole or tick.value == int(tick.value)
    assert len(numbers) <= 8
    slack = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - slack <= value <= scale.high + slack for value in values)


@given(st.floats(1e-5, 1e9), st.floats(1e-4, 1))
def test_ordinary_values_have_no_exponents(high: float, width: float) -> None:
    assert "e" not in "".join(labels_of(Scale([high * (1 - width), high], 200, 20)))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1.3001, 1.3004], ["1.3001", "1.3002", "1.3003", "1.3004"]),
        ([1.28, 1.39], ["1.275", "1.300", "1.325", "1.350", "1.375", "1.400"]),
        ([0, 2e-4], ["0.00000", "0.00005", "0.00010", "0.00015", "0.00020"]),
        ([0, 60_000], ["0", "20,000", "40,000", "60,000"]),
        ([1e12, 3e12], ["1.0e12", "1.5e12", "2.0e12", "2.5e12", "3.0e12"]),
    ],
)
def test_ticks_are_round_numbers(values: list[float], labels: list[str]) -> None:
    assert labels_of(Scale(values, 200, 20)) == labels


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_bars_stand_on_the_axis_and_are_as_high_as_their_counts(counts: list[int]) -> None:
    drawn = bar_chart("t", [Bar(str(index), f"<{index}>", count) for index, count in enumerate(counts)], "x", 1)
    bars = list(ElementTree.fromstring(drawn).iter("rect"))
    assert len(bars) == len(counts)
    assert [bar.attrib["class"] for bar in bars] == ["bar" if index < 2 else "bar dim" for index in range(len(bars))]
    unit = max(float(bar.attrib["height"]) for bar in bars) / (max(counts) or 1)
    for index, (bar, count) in enumerate(zip(bars, counts, strict=True)):
        assert float(bar.attrib["height"]) == pytest.approx(count * unit, abs=0.1)
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) == pytest.approx(192, abs=0.1)
        assert bar.findtext("title") == f"<{index}>: {count:,}"
    assert bar_chart("t", []) == ""


def test_two_series_stand_side_by_side_with_long_labels_shortened() -> None:
    labels = ["one", "a very long label indeed, longer than its place", "一个很长很长很长很长很长很长很长的标签"]
    drawn = grouped_bar_chart("t", labels, {"you": [0.5, 0.25, 0], "it": [0.25, 0.5, 0]})
    figure = ElementTree.fromstring(drawn)
    assert [bar.findtext("title") for bar in figure.iter("rect")][:2] == [
        "you, one: 50%",
        "you, a very long label indeed, longer than its place: 25%",
    ]
    texts = [text.text or "" for text in figure.iter("text")]
    assert "■ you" in texts
    assert "■ it" in texts
    assert "40%" in texts
    assert "one" in texts
    assert sum(text.endswith("…") for text in texts) == 2
    assert grouped_bar_chart("t", [], {}) == ""
    silent = grouped_bar_chart("t", ["a"], {"you": [0], "it": [0]})
    assert [bar.attrib["height"] for bar in ElementTree.fromstring(silent).iter("rect")] == ["0.0", "0.0"]


def test_a_heat_map_has_a_cell_for_every_count() -> None:
    figure = ElementTree.fromstring(heat_map("t", ["Mon", "Tue"], [("0", "00:00"), ("", "01:00")], {(1, 1): 3}))
    cells = list(figure.iter("rect"))
    assert [cell.findtext("title") for cell in cells][-1] == "Tue 01:00 · 3"
    assert [cell.attrib["class"] for cell in cells] == ["empty", "empty", "empty", "bar"]


def test_bars_in_a_table_are_shares_of_the_whole() -> None:
    drawn = bar_table([TableBar("<a>", 50), TableBar("b", 25, offset=50, is_dropped=True)], 100)
    rows = list(ElementTree.fromstring(drawn).iter("tr"))
    assert [[cell.text for cell in row.iter("td")][:2] for row in rows] == [["<a>", "50"], ["b", "25"]]
    assert "margin-left:50.00%;width:25.00%" in drawn
    assert rows[1].attrib["class"] == "dropped"
    assert "width:0.00%" in bar_table([TableBar("a", 0)], 0)


def test_sections_are_appended_replaced_and_bring_their_style_to_older_pages() -> None:
    first = page("t", "s", [Section("Old", "")])
    added = with_sections(first, "More", [Section("New", "1")])
    assert added.count("svg .bar") == first.count("svg .bar")
    replaced = with_sections(added, "More", [Section("New", "2")])
    assert (replaced.count("<section>"), "1</section>" in replaced) == (2, False)
    older = "<html><body></body></html>"
    once = with_sections(older, "More", [Section("New", "1")])
    assert with_sections(once, "More", [Section("New", "1")]) == once
    assert "svg .bar" in once
    both = with_sections(once, "Quiz", [Section("Quiz", "3")], mark="quiz")
    assert both.count("svg .empty") == 1
    assert both.index("Quiz") > both.index("New")


def test_the_page_needs_nothing_from_elsewhere_and_escapes_what_it_is_given() -> None:
    sections = [
        Section("One & two", figures([("<b>", "1")]) + table(["a"], [["<script>alert(1)</script>"]])),
        Section("Charts", charts([line_chart("c", "x", [(1, 1.0)])])),
    ]
    text = page("<me>", "sub", sections)
    assert "<script" not in text
    assert "&lt;me&gt;" in text
    assert re.findall(r"(?:src|href)=|url\(|@import|https?://", text) == []
    assert text.count("<section>") == 2
