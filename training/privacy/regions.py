"""Guesses whose phone numbers a message may contain: where the owner lives, and where its language is spoken."""

from functools import lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from doppel.transcript.language import language_of

_REGIONS_OF_LANGUAGE = {
    "ar": ("EG", "SA", "AE"),
    "de": ("DE", "AT", "CH"),
    "el": ("GR",),
    "en": ("US", "GB", "AU"),
    "es": ("ES", "MX", "AR", "CO", "CL", "PE"),
    "fr": ("FR", "BE"),
    "he": ("IL",),
    "hi": ("IN",),
    "id": ("ID",),
    "it": ("IT",),
    "ja": ("JP",),
    "ko": ("KR",),
    "pt": ("BR", "PT"),
    "ru": ("RU", "UA"),
    "th": ("TH",),
    "tr": ("TR",),
    "zh": ("CN", "TW", "HK"),
}
"""By ISO 639-1 code, the countries (ISO 3166) with the most speakers that write numbers in different ways."""


class Regions:
    """Guesses the countries whose numbers a message may contain.

    Args:
        zone: the owner's time zone, which lies in one country; None if it is not known.
    """

    def __init__(self, zone: ZoneInfo | None = None) -> None:
        self._home = _region_of_zone(zone.key) if zone is not None else ()

    def of(self, *texts: str) -> tuple[str, ...]:
        """ISO 3166 codes, the likeliest first.

        Args:
            texts: the message, and others of the same chat.
        """
        languages = dict.fromkeys(language_of(text, min_words=1) for text in texts)  # a hint is enough
        spoken = (region for language in languages for region in _REGIONS_OF_LANGUAGE.get(language or "", ()))
        return tuple(dict.fromkeys((*self._home, *spoken)))


@lru_cache(maxsize=16)
def _region_of_zone(key: str) -> tuple[str, ...]:
    """The country of a time zone, by the table of the tz database; none for zones such as UTC."""
    table = files("tzdata.zoneinfo").joinpath("zone.tab").read_text(encoding="utf-8")
    rows = (row.split("\t") for row in table.splitlines() if not row.startswith("#"))
    return tuple(region for region, _, zone, *_ in rows if zone == key)
