"""Names of emoji as chat apps write them between colons, and the emoji that they stand for. Knows no format."""

import re
import unicodedata

_IN_TEXT = re.compile(r"(?<![\w`]):(?P<name>[a-z0-9_+'-]{1,60})(?:::skin-tone-\d)?:(?![\w`])")
_SKIN = re.compile(r"::skin-tone-\d$")
_FLAG = re.compile(r"flag-([a-z])([a-z])$")
_FIRST_LETTER_OF_FLAGS = 0x1F1E6
_ALIASES = {
    "simple_smile": "🙂",
    "upside_down_face": "🙃",
    "the_horns": "🤘",
    "facepalm": "🤦",
    "face_palm": "🤦",
    "man-facepalming": "🤦",
    "woman-facepalming": "🤦",
    "shrug": "🤷",
    "man-shrugging": "🤷",
    "woman-shrugging": "🤷",
}
"""Names of Slack's that neither rich nor Unicode knows."""


def emoji_named(name: str) -> str:
    """The emoji of a name such as `joy`, `+1::skin-tone-3` or `flag-de`, without its skin tone; else `:name:`."""
    from rich.emoji import Emoji

    plain = _SKIN.sub("", name)
    if not plain:
        return ""
    if plain in _ALIASES:
        return _ALIASES[plain]
    if flag := _FLAG.match(plain):
        return "".join(chr(_FIRST_LETTER_OF_FLAGS + ord(letter) - ord("a")) for letter in flag.groups())
    found = Emoji.replace(f":{plain}:")
    if found.startswith(":"):
        found = _of_unicode(plain) or found
    return found


def with_emoji(text: str) -> str:
    """The text with the emoji themselves in place of their names; what is no emoji's name stays."""
    return _IN_TEXT.sub(lambda match: emoji_named(match["name"]), text) if ":" in text else text


def _of_unicode(name: str) -> str:
    """The sign that Unicode calls so, if it is a picture: newer ones are in no other list."""
    try:
        sign = unicodedata.lookup(name.replace("_", " "))
    except KeyError:
        return ""
    return sign if unicodedata.category(sign) == "So" else ""
