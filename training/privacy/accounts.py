"""Finds accounts of WeChat and QQ in what people write: by them anybody can be looked up, as by a phone number."""

import re
from collections.abc import Iterator

from training.privacy.secret_span import SecretSpan

_WECHAT_ID = re.compile(r"(?<![0-9A-Za-z_])wxid_[0-9A-Za-z_-]{6,40}")
_WECHAT_SAID = re.compile(
    r"(?P<clear>(?:微信|薇信|威信|[Vv][信Xx]|[Ww][Xx]|[Ww]e[Cc]hat)\s?(?:号码?|[Ii][Dd]|账号|帐号)"
    r"|加(?:我|一下我?|下我?)?的?\s?(?:微信|薇信|威信|[Vv][信Xx]|[Ww][Xx]|[Vv](?![A-Za-z]))"
    r"|我的?\s?(?:微信|[Vv][信Xx]|[Ww][Xx])(?=\s?(?:就?是|[:=])))"
    r"|(?<![A-Za-z])(?:微信|薇信|威信|[Vv][信Xx]|[Ww][Xx]|(?i:wechat|weixin))"
)
_WECHAT_VALUE = re.compile(r"\s?(?:就?是|为|[:=]|is\b)?\s?[\"'“「]?([A-Za-z][A-Za-z0-9_-]{5,19})(?![A-Za-z0-9_.@-])")
_QQ = re.compile(
    r"(?:(?<![A-Za-z])[Qq]{2}|扣扣|企鹅号?|[Qq]号|群号|加群)\s?(?:号码?|群号?|[Ii][Dd]|number)?\s?"
    r"(?:就?是|为|[:=]|is\b)?\s?([1-9][0-9]{4,10})(?![0-9A-Za-z@.]|\s?[人个次块元万年月天条级])"
)


_WORDS = frozenset(
    ("please", "thanks", "friend", "friends", "account", "tomorrow", "tonight", "anytime", "quickly", "directly")
)


def find_accounts(text: str) -> Iterator[SecretSpan]:
    """WeChat ids and QQ numbers."""
    for match in _WECHAT_ID.finditer(text):
        yield SecretSpan(match.start(), match.end(), "id", "token")
    for said in _WECHAT_SAID.finditer(text):
        value = _WECHAT_VALUE.match(text, said.end())
        # Without a digit or a line it may be any English word.
        if value and (said["clear"] or not value[1].isalpha()) and not _is_word(value[1], text[value.end() :]):
            yield SecretSpan(value.start(1), value.end(1), "id", "word")
    for match in _QQ.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "id", "number")


def _is_word(value: str, after: str) -> bool:
    """Whether letters are a word, or the beginning of a sentence, rather than a name."""
    return value.isalpha() and (value.lower() in _WORDS or re.match(r"\s[a-z]", after) is not None)
