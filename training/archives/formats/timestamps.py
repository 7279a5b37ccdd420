"""Dates and times as exports write them: ISO 8601, numbers since 1970, English months, AM and PM in many languages."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
"""Abbreviated English months."""

# AM and PM as phones write them in their owner's language; letters may be followed by dots.
_AM = (
    *(r"a\.?\s?m\.?", "上午", "凌晨", "早上", "清晨", "午夜", "半夜", "午前", "오전", "새벽", r"π\.?\s?μ\.?"),
    *("ص", "पूर्वाह्न", "पूर्व", "পূর্বাহ্ণ", "ÖÖ", "SA", "PG", "paradite", r"de\.", "дп", r"пр\.\s?об\.", r"ق\.\s?ظ\.?"),
    *('לפנה[״"]צ', r"vm\.", "முற்பகல்", "ก่อนเที่ยง", r"f\.?m\.?", "dop", r"dop\."),
)
_PM = (
    *(r"p\.?\s?m\.?", "下午", "中午", "傍晚", "晚上", "正午", "午後", "오후", "정오", r"μ\.?\s?μ\.?"),
    *("م", "अपराह्न", "अपर", "অপরাহ্ণ", "ÖS", "CH", "PTG", "pasdite", r"du\.", "пп", r"сл\.\s?об\.", r"ب\.\s?ظ\.?"),
    *('אחה[״"]צ', r"nm\.", "பிற்பகல்", "หลังเที่ยง", r"e\.?m\.?", "odp", r"odp\."),
)
AM_PM = "|".join(sorted((*_AM, *_PM), key=len, reverse=True))
"""Pattern of AM or PM in any language; use it with `re.IGNORECASE`."""
AM_PM_EAST_ASIA = r"[ap]\.?\s?m\.?|上午|凌晨|早上|清晨|中午|下午|傍晚|晚上|午前|午後|오전|오후"
"""The same for East Asian apps, without the short words of other languages, which may be names there."""

_IS_PM = re.compile("|".join(_PM), re.IGNORECASE)
_MILLISECONDS_FROM = 1e11
"""Numbers above this are milliseconds: as seconds they would be after the year 5138."""


def to_utc(text: str, zone: ZoneInfo) -> datetime:
    """A time in ISO 8601; one without a zone is in `zone`. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)


def from_epoch(number: float) -> datetime:
    """A time in seconds since 1970, or in thousandths, millionths or billionths of seconds.

    Raises ValueError, OverflowError or OSError.
    """
    for _ in range(3):
        if number > _MILLISECONDS_FROM:
            number /= 1000
    return datetime.fromtimestamp(number, UTC)


def hour_24(hour: int, am_pm: str | None) -> int:
    """The hour from 0 to 23; AM or PM is ignored beside an hour above 12."""
    if not am_pm or hour > 12:
        return hour
    if am_pm == "中午" and hour == 11:  # noon, which begins at 11
        return hour
    return hour % 12 + (12 if _IS_PM.fullmatch(am_pm) else 0)


def month_number(name: str) -> int:
    """1 to 12 for an English month, in full or abbreviated. Raises ValueError."""
    short = name[:3].lower()
    if short not in MONTHS:
        raise ValueError(name)
    return MONTHS.index(short) + 1
