"""Which cron expressions are accepted, and which times they name."""

from datetime import datetime, timedelta
from itertools import islice

import pytest

from doppel.config.cron import CronExpression

MONDAY = datetime(2026, 3, 2)  # noqa: DTZ001 - local times have no zone
YEAR = timedelta(days=366)


def first(count: int, cron: str) -> list[datetime]:
    return list(islice(CronExpression(cron).local_times(MONDAY, MONDAY + YEAR), count))


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("0", ["Sun"]),
        ("7", ["Sun"]),
        ("1-5", ["Mon", "Tue", "Wed", "Thu", "Fri"]),
        ("sat,sun", ["Sat", "Sun"]),
        ("FRI-MON", ["Mon", "Fri", "Sat", "Sun"]),
        ("*/2", ["Tue", "Thu", "Sat", "Sun"]),
        ("1-5/2", ["Mon", "Wed", "Fri"]),
        ("5/1", ["Fri", "Sat"]),
    ],
)
def test_weekdays_are_crons(field: str, days: list[str]) -> None:
    times = [time for time in first(7, f"0 0 * * {field}") if time < MONDAY + timedelta(days=7)]
    assert [f"{time:%a}" for time in times] == days


def test_day_and_weekday_together_mean_either() -> None:
    assert [f"{time:%a %d}" for time in first(3, "0 0 5 * sun")] == ["Thu 05", "Sun 08", "Sun 15"]


def test_day_and_weekday_are_both_required_when_one_is_open() -> None:
    assert [f"{time:%a %d}" for time in first(3, "0 0 */2 * sun")] == ["Sun 15", "Sun 29", "Sun 05"]


def test_months_have_names() -> None:
    assert [f"{time:%d.%m.}" for time in first(2, "0 0 1 jun,DEC *")] == ["01.06.", "01.12."]


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("* * * *", "five fields are needed: minute hour day month weekday"),
        ("@daily", "five fields are needed"),
        ("", "five fields are needed"),
        ("61 * * * *", "`61` is not a valid minute: write 0-59, a range"),
        ("*/0 * * * *", "`*/0` is not a valid minute"),
        ("0 24 * * *", "`24` is not a valid hour: write 0-23, a range"),
        ("0 22-2 * * *", "`22-2` is not a valid hour"),
        ("0 0 0 * *", "`0` is not a valid day: write 1-31, a range"),
        ("0 0 * 13 *", "`13` is not a valid month"),
        ("0 0 * * 8", "`8` is not a valid weekday: write 0-7, sun-sat, a range"),
        ("0 0 * * funday", "`funday` is not a valid weekday"),
        ("0 0 * * */0", "`*/0` is not a valid weekday"),
        ("x y z a b", "`x` is not a valid minute"),
    ],
)
def test_what_is_invalid_is_named(cron: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        CronExpression(cron)
    assert message in str(caught.value)


@pytest.mark.parametrize(("cron", "ever"), [("0 0 30 2 *", False), ("0 0 31 4,6 *", False), ("0 0 29 2 */7", True)])
def test_whether_it_ever_matches(cron: str, ever: bool) -> None:
    assert CronExpression(cron).ever_matches() is ever
