"""Charts are valid SVG with axes that hold every point, and the page is complete in itself."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doppel.reports.curves import Curve, draw
from doppel.reports.html import Section, charts, figures, page, table


def parsed(curve: Curve) -> ElementTree.Element:
    return ElementTree.fromstring(draw(curve))


def dots(figure: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in figure.iter("circle")]


def test_points_lie_where_the_axes_say() -> None:
    curve = Curve(title="a < b", across="step", points=[(10, 2.0), (20, 1.0), (30, 4.0)], marked=True)
    figure = parsed(curve)
    assert figure.findtext("figcaption") == "a < b"
    (x1, y1), (x2, y2), (x3, y3) = dots(figure)
    assert x1 < x2 < x3
    assert x3 - x2 == pytest.approx(x2 - x1, abs=0.2)
    assert y3 < y1 < y2  # upwards is less, in SVG
    ticks = {one.text: float(one.attrib["y"]) - 5 for one in figure.iter("text")}
    assert ticks["2.0" if "2.0" in ticks else "2"] == pytest.approx(y1, abs=0.2)
    assert [one.text for one in figure.iter("title")] == ["step 10: 2", "step 20: 1", "step 30: 4"]
    assert [one.text for one in figure.iter("text") if one.attrib.get("class") == "lowest"] == ["1"]


@given(
    st.lists(st.floats(-1e9, 1e9, allow_nan=False) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=60),
    st.booleans(),
    st.booleans(),
)
@example([5e-324], False, False)
def test_whatever_the_numbers_the_drawing_stays_in_its_frame(values: list[float], noisy: bool, marked: bool) -> None:
    points = list(enumerate(values))
    drawn = draw(Curve(title="t", across="step", points=points, noisy=noisy, marked=marked))
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
    assert len(draw(Curve(title="loss", across="step", points=points, noisy=True))) < 20_000


def test_small_numbers_are_readable() -> None:
    points = [(1, 0.0), (2, 5e-4)]
    assert ">5e-4<" in draw(Curve(title="learning rate", across="step", points=points))


def test_the_page_needs_nothing_from_elsewhere_and_escapes_what_it_is_given() -> None:
    sections = [
        Section("One & two", figures([("<b>", "1")]) + table(["a"], [["<script>alert(1)</script>"]])),
        Section("Charts", charts([draw(Curve(title="c", across="x", points=[(1, 1.0)]))])),
    ]
    text = page("<me>", "sub", sections)
    assert "<script" not in text
    assert "&lt;me&gt;" in text
    assert re.findall(r"(?:src|href)=|url\(|@import|https?://", text) == []
    assert text.count("<section>") == 2
