"""Finds secrets in the text of a message: tokens, passwords, private links, email and IP addresses, personal data.

Values that can be verified are (checksums, ranges, lengths). Others count only after a word that announces them,
because prices, dates and scores are far more frequent than secrets.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import partial

from doppel.config import PrivateKind
from training.privacy.accounts import find_accounts
from training.privacy.identity_numbers import find_cards, find_ibans, find_identity_numbers
from training.privacy.phones import find_phones
from training.privacy.regions import Regions
from training.privacy.secret_span import SecretForm, SecretSpan
from training.privacy.streets import find_streets
from training.privacy.tokens import LONG_NAMED, find_random, find_scrambled, find_tokens

# Most messages contain none of these characters; nearly every secret contains one. `_has_secret_word` finds the rest.
_HINT = re.compile("[0-9０-９٠-٩۰-۹०-९๐-๙@＠/／:：=＝码碼令号號钥鑰]")
_ASCII_HINT = re.compile("[0-9@/:=]")  # the ASCII part of `_HINT`, twice as fast

_FOLDED = str.maketrans(
    "０１２３４５６７８９＠／：＝＋（）－．，＃＆？＿　\u00a0\u202f\u2009\u2010\u2011\u2012\u2013\u2212"
    "٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹०१२३४५६७८९๐๑๒๓๔๕๖๗๘๙",
    "0123456789@/:=+()-.,#&?_    -----" + 4 * "0123456789",
)
_NUMBER = re.compile(r"[0-9](?:[ ()./\-]{0,3}[0-9]){6}|\+[1-9](?: ?[0-9]){5}")
_LETTERED_NUMBER = re.compile(r"[A-Za-z]{2}[0-9]{2}|[A-Z]{2} [0-9]{2} ?[0-9]{2}")
"""What every number of a person has: seven digits, six after a plus, or letters before digits."""
_SHORTEST_TOKEN = 20
_LONG_RUN = re.compile(f"[A-Za-z_-]{{{_SHORTEST_TOKEN}}}")
"""A token without digits; after a prefix, which looking for first takes less time."""
_ANYWHERE = Regions()

_Detector = Callable[[str], Iterator[SecretSpan]]
_Detectors = tuple[tuple[frozenset[PrivateKind], _Detector], ...]


def find_secrets(
    text: str, kinds: frozenset[PrivateKind], regions: Regions = _ANYWHERE, earlier: str = ""
) -> list[SecretSpan]:
    """The secrets of these kinds, in order, not overlapping. Of nested ones the outer one is returned.

    Args:
        text: cleaned text of a message.
        kinds: what to find.
        regions: guesses whose phone numbers it may contain.
        earlier: another text of the same chat, whose language may differ from that of this one.
    """
    hint = _ASCII_HINT if text.isascii() else _HINT
    if not hint.search(text) and not _has_secret_word(text):
        return []
    if not text.isascii():
        text = text.translate(_FOLDED)  # maps single characters, so positions stay valid
    spans: list[SecretSpan] = []
    numbers: _Detector = partial(_numbers, regions=regions, earlier=earlier)
    for detected_kinds, detect in (*_BEFORE_NUMBERS, (_NUMBER_KINDS, numbers), *_AFTER_NUMBERS):
        if kinds.isdisjoint(detected_kinds):
            continue
        for span in detect(text):
            if span.kind in kinds:
                _add_span(spans, span)
    spans.sort()
    return spans


def _has_secret_word(text: str) -> bool:
    """Whether a text without hint characters has a word that may announce a secret, or an obfuscated `@`."""
    if "assw" in text or "ASSW" in text or "assphrase" in text:
        return True
    if len(text) >= LONG_NAMED and ("oken" in text or "ecret" in text or "key" in text.lower()):
        return True
    may_have_token = len(text) >= _SHORTEST_TOKEN and ("-" in text or "_" in text or "IA" in text or "ACCA" in text)
    if may_have_token and _LONG_RUN.search(text):
        return True
    if "微信" in text:
        return True
    return "at]" in text or "at)" in text or "AT]" in text or "AT)" in text or "#" in text


def _add_span(spans: list[SecretSpan], new: SecretSpan) -> None:
    """Adds a span unless it overlaps an earlier one; spans that lie strictly inside the new one are replaced."""
    overlapping = [span for span in spans if new.start < span.end and span.start < new.end]
    if not overlapping:
        spans.append(new)
    elif all(new.start <= span.start and span.end <= new.end for span in overlapping) and not any(
        (new.start, new.end) == (span.start, span.end) for span in overlapping
    ):
        spans[:] = [span for span in spans if span not in overlapping]
        spans.append(new)


# Links ---------------------------------------------------------------------------------------------------------------

_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s<>\"'`\u3000-\u303f\u4e00-\u9fff！，？；]+", re.ASCII)
_CREDENTIALS = re.compile(r"://([^\s/@:]*):([^\s/]+)@")
_PARAMETER = re.compile(r"[?&#;]([\w.-]+)=([^\s&#;]{4,})", re.ASCII)
_SECRET_NAME = re.compile(
    r"(?:.*(?:token|secret|signature|passw|api_?-?key|access_?-?key|credential|session).*)|auth|sig|pwd|pass|otp|jwt|k"
    r"|passcode|(?:share_?)?key|code|sid|ticket|invite|hash|confirm(?:ation)?|verify|reset|nonce",
    re.ASCII | re.IGNORECASE,
)
_PRIVATE_LINK = re.compile(
    r"(?<![\w.-])(?:www\.)?(?:(?:t|telegram)\.me/(?:joinchat/|\+)|discord(?:app)?\.(?:gg|com/invite)/"
    r"|chat\.whatsapp\.com/(?:invite/)?|wa\.me/(?=[0-9+])|(?:[\w-]+\.)?zoom\.(?:us|com\.cn)/(?:j|my|s|w|meeting/register)/"
    r"|meet\.google\.com/|teams\.(?:microsoft|live)\.com/(?:l/meetup-join|meet)/|meeting\.tencent\.com/(?:dm|p|s|l)/"
    r"|(?:[\w-]+\.)?(?:feishu\.cn|larksuite\.com)/(?:j|docx|docs|wiki|sheets|base|file)/"
    r"|[\w-]+\.webex\.com/(?:meet|join)/|join\.skype\.com/|signal\.group/\#|line\.me/(?:R/)?ti/[gp]/|u\.wechat\.com/"
    r"|weixin\.qq\.com/g/|(?:docs|drive)\.google\.com/(?:[\w]+/)*(?:d|folders)/(?:e/)?"
    r"|dropbox\.com/(?:s|sh|scl/fi|scl/fo)/"
    r"|1drv\.ms/(?:\w/)*|pan\.baidu\.com/s/|(?:aliyundrive|alipan)\.com/s/|join\.slack\.com/t/[\w-]+/shared_invite/"
    r"|hooks\.slack\.com/services/\w+/\w+/|discord(?:app)?\.com/api/webhooks/[0-9]+/|meet\.jit\.si/|whereby\.com/|we\.tl/)"
    r"([\w+=%~.-]{4,})",
    re.ASCII | re.IGNORECASE,
)


def _links(text: str) -> Iterator[SecretSpan]:
    if "/" not in text:
        return
    for match in _PRIVATE_LINK.finditer(text):
        yield _trimmed(text, match.start(1), match.end(1), "url", "word")
    for link in _LINK.finditer(text):
        if (login := _CREDENTIALS.search(link[0])) is not None:
            yield SecretSpan(link.start() + login.start(2), link.start() + login.end(2), "url", "word")
            if len(login[1]) >= 16:  # a token in place of a user name
                yield SecretSpan(link.start() + login.start(1), link.start() + login.end(1), "url", "word")
        for match in _PARAMETER.finditer(link[0]):
            if _SECRET_NAME.fullmatch(match[1]):
                yield _trimmed(text, link.start() + match.start(2), link.start() + match.end(2), "url", "word")


def _trimmed(text: str, start: int, end: int, kind: PrivateKind, form: SecretForm) -> SecretSpan:
    """The span without punctuation at its end, which belongs to the sentence."""
    return SecretSpan(start, start + len(text[start:end].rstrip(".,;!?)]}\"'")) or end, kind, form)


# Email and network addresses ------------------------------------------------------------------------------------------

_EMAIL = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._%+-]*[A-Za-z0-9_+-])?@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![A-Za-z0-9@])"
)
_OBFUSCATED_EMAIL = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._%+-]*[A-Za-z0-9_+-])?(?: ?[\[({<] ?(?:at|@) ?[\])}>] ?"
    r"|#(?=(?:qq|1[26][36]|gmail|outlook|hotmail|foxmail|sina|yeah|live|icloud)\.))"
    r"(?:[A-Za-z0-9-]{1,63}(?:\.| ?[\[({<] ?(?:dot|punkt|\.) ?[\])}>] ?| dot )){1,4}[A-Za-z]{2,24}(?![A-Za-z0-9@])",
    re.ASCII | re.IGNORECASE,
)
"""Addresses obfuscated with `[at]`, `(dot)` and the like."""
_IN_LOGIN = re.compile(r"://[^\s/]*$")
_IPV4 = re.compile(r"(?<![0-9A-Za-z.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z-]|\.[0-9])")
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:])")
_VERSION = re.compile(
    r"(?:\bv|\bver\.?|version|build|release|firmware|update[ds]?(?: to)?|upgrade[ds]?(?: to)?|section|chapter|版本号?"
    r"|升级到|更新到|固件|第)\s*:?\s*$",
    re.ASCII | re.IGNORECASE,
)
_PUBLIC_DNS = frozenset(("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "114.114.114.114", "223.5.5.5"))


def _emails(text: str) -> Iterator[SecretSpan]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if not _IN_LOGIN.search(text[max(0, match.start() - 80) : match.start()]):
                yield SecretSpan(match.start(), match.end(), "email", "email")
    if "#" in text or "@" in text or "at" in text.lower():
        for match in _OBFUSCATED_EMAIL.finditer(text):
            yield SecretSpan(match.start(), match.end(), "email", "email")


def _networks(text: str) -> Iterator[SecretSpan]:
    if text.count(".") >= 3:
        for match in _IPV4.finditer(text):
            try:
                address = ipaddress.IPv4Address(match[0])
            except ValueError:
                continue
            is_special = address.is_loopback or address.is_multicast or address.packed[0] in (0, 255)
            if not is_special and match[0] not in _PUBLIC_DNS and not _VERSION.search(text[: match.start()]):
                yield SecretSpan(match.start(), match.end(), "ip", "ipv4")
    if text.count(":") >= 2:
        for match in _IPV6.finditer(text):
            try:
                ipaddress.IPv6Address(match[0])
            except ValueError:
                continue
            groups = sum(bool(group) for group in match[0].split(":"))
            if groups >= 4 or (groups >= 2 and match[0][:2].lower() in ("20", "24", "26", "2a", "fd", "fe")):
                yield SecretSpan(match.start(), match.end(), "ip", "ipv6")


# Passwords -----------------------------------------------------------------------------------------------------------

_PASSWORD = re.compile(
    r"(?<![A-Za-z])(?:pass(?:word|wort|wd|code|phrase|key)|kennwort|contrase[nñ]a|mot de passe|senha|pwd|pw"
    r"|pass(?=\s*[:=])|pin|otp|(?:verification|security|login|access|confirmation|one[- ]time|2fa|auth|door|gate)"
    r" (?:pass)?code|code(?=\s*:))s?(?![A-Za-z])"
    r"(?:\s+(?:for|to|of|on|here|now)\b[^\n:=]{0,30}?)?"
    r"(?P<link>[\"']?\s*(?::|=|->)\s*(?:is\s)?|\s+-\s+"
    r"|(?:\s+(?:is|ist|est|es)|'s|\s+was|\s+changed to)(?:\s+now)?\s*:?\s+)"
    r"(?P<quote>[\"'`“‘「]?)(?P<value>[!-~]{4,64})",
    re.ASCII | re.IGNORECASE,
)
_BARE_PASSWORD = re.compile(
    r"(?<![A-Za-z])(?:pass(?:word|wort|wd|code)|pwd|pw|pin)(?P<link>\s+)(?P<quote>[\"'`“]?)(?P<value>(?=[!-~]*[0-9])[!-~]{4,64})",
    re.ASCII | re.IGNORECASE,
)
_CN_PASSWORD = re.compile(
    r"(?:密码|密碼|口令|提取码|验证码|驗證碼|校验码|动态码|激活码|邀请码|解压码|取件码|开锁码|パスワード|暗証番号|비밀번호|비번"
    r"|пароль)(?P<link>\s*(?:就?是|为|改成了?|改为|设成了?|换成了?|[はが는은]|[:=])?\s*:?\s*)"
    r"(?P<quote>[\"'`“‘「]?)(?P<value>[!-~]{4,64})",
    re.ASCII,
)
_YOUR_CODE = re.compile(r"(?<![0-9A-Za-z.])(?:G-)?([0-9]{4,8})\s+is your\b[^\n]{0,40}?\bcode", re.ASCII | re.IGNORECASE)
_ORDINARY_WORDS = frozenset(
    """
    about above after again also always attached available bad because been before below better blank broken case
    case-sensitive changed correct different easy either empty enough even expired false fine from gone good great
    hard hello here hidden incorrect inside invalid just like literally long lost maybe mine missing much needed never
    none nothing null okay only optional password passwort please pretty probably protected really required right same
    same-as-before saved secret secure sent short simple so-so something sorry still stored string strong stupid super
    terrible thanks that the their there these they this those too trash true undefined under unknown until user
    username usually value very weak weird what when where which whole with working wrong your yours
    """.split()  # noqa: SIM905 - a list of words, not of quotation marks
)
_COUNTER_WORDS = "位个個字次条天年月日点折元块秒分"
_FOREIGN_IS = frozenset(("ist", "est", "es"))
""""is" in languages whose ordinary words are not listed above: only values that are no word at all count after it."""
_WORD_ENDINGS = ("ed", "ing", "able", "ible", "ful", "ive", "ous", "ly", "n't")


def _passwords(text: str) -> Iterator[SecretSpan]:
    for pattern in (_PASSWORD, _BARE_PASSWORD, _CN_PASSWORD):
        for match in pattern.finditer(text):
            value = match["value"]
            if match["quote"]:
                close = {"“": "”", "‘": "’", "「": "」"}.get(match["quote"], match["quote"])
                value = value.partition(close)[0]
            value = value.rstrip(".,;!?)]}\"'")
            end = match.start("value") + len(value)
            if _is_password(value, match["link"].strip(), text[end:], quoted=bool(match["quote"])):
                yield SecretSpan(match.start("value"), end, "password", "word")
    if "is your" in text:
        for match in _YOUR_CODE.finditer(text):
            yield SecretSpan(match.start(1), match.end(1), "password", "word")


def _is_password(value: str, link: str, after: str, *, quoted: bool) -> bool:
    """Whether the value after `password:` or `密码是` is a password, and not a remark about one.

    Args:
        value: the text that may be a password.
        link: what connects it to the word for a password, such as `:` or `is`.
        after: the rest of the message.
        quoted: whether the value is in quotation marks.
    """
    if len(value) < 4 or "://" in value or value.lower() in _ORDINARY_WORDS:
        return False
    if any(map(str.isdigit, value)):
        return not (value[0].isdigit() and after.lstrip()[:1] and after.lstrip()[0] in _COUNTER_WORDS)
    if quoted:
        return True
    is_followed = re.match(r"\s*[a-z\u4e00-\u9fff]", after) is not None  # the sentence goes on
    if not value.isalpha():
        return len(value.strip("'-")) >= 4 and not re.fullmatch(r"[A-Za-z]+(?:['’/-][A-Za-z]+)+", value)
    is_mixed_case = not value.islower() and not value.isupper() and not value.istitle()
    is_stated = bool(link) and link.lower() not in _FOREIGN_IS
    return is_mixed_case or (is_stated and not is_followed and not value.lower().endswith(_WORD_ENDINGS))


def _numbers(text: str, regions: Regions, earlier: str) -> Iterator[SecretSpan]:
    """Numbers of people, the most reliable first."""
    if not _NUMBER.search(text):
        if _LETTERED_NUMBER.search(text):
            yield from find_identity_numbers(text)
        return
    yield from find_identity_numbers(text)
    yield from find_cards(text)
    yield from find_phones(text, lambda: regions.of(text, earlier))


_BEFORE_NUMBERS: _Detectors = (
    (frozenset(("url",)), _links),
    (frozenset(("email",)), _emails),
    (frozenset(("token",)), find_tokens),
    (frozenset(("iban",)), find_ibans),
)
_NUMBER_KINDS: frozenset[PrivateKind] = frozenset(("id", "card", "phone"))
_AFTER_NUMBERS: _Detectors = (
    (frozenset(("id",)), find_accounts),
    (frozenset(("ip",)), _networks),
    (frozenset(("password",)), _passwords),
    (frozenset(("address",)), find_streets),
    (frozenset(("token",)), find_random),
    (frozenset(("token",)), find_scrambled),
)
"""The most reliable first: of two equal spans the earlier one counts."""
