"""Replaces the names of emoji that chat apps export (`:joy:`, `:+1::skin-tone-3:`, `:flag-de:`) by the emoji."""

import re

_IN_TEXT = re.compile(r"(?<![\w`]):(?P<name>[a-z0-9_+'-]{1,60})(?:::skin-tone-\d)?:(?![\w`])")
_SKIN = re.compile(r"::skin-tone-\d$")
_FLAG = re.compile(r"flag-([a-z])([a-z])$")
_REGIONAL_INDICATOR_A = 0x1F1E6
_SLACK_NAMES = {"simple_smile": "🙂", "the_horns": "🤘", "face_palm": "🤦"}
"""Names in Slack's exports that the library does not have."""


def emoji_named(name: str) -> str:
    """The emoji of a name such as `joy`, `+1::skin-tone-3` or `flag-de`, without its skin tone; else `:name:`."""
    from emoji import emojize  # takes 0.2 s to import

    plain = _SKIN.sub("", name)
    if not plain:
        return ""
    if plain in _SLACK_NAMES:
        return _SLACK_NAMES[plain]
    if flag := _FLAG.match(plain):
        return "".join(chr(_REGIONAL_INDICATOR_A + ord(letter) - ord("a")) for letter in flag.groups())
    for spelling in (plain, plain.replace("-", "_")):  # Slack writes man-shrugging, Unicode man_shrugging
        shown = emojize(f":{spelling}:", language="alias")
        if not shown.startswith(":"):
            return shown
    return f":{plain}:"


def replace_emoji_names(text: str) -> str:
    """The text with emoji in place of their names; unknown names stay as they are."""
    return _IN_TEXT.sub(lambda match: emoji_named(match["name"]), text) if ":" in text else text
