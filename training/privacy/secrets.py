"""Finds secrets in the text of a message: tokens, passwords, private links, email and IP addresses, personal data.

Values that can be verified are (checksums, ranges, lengths). Others count only after a word that announces them,
because prices, dates and scores are far more frequent than secrets.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator

from doppel.config import PrivateKind
from training.privacy.personal_data import SecretForm, SecretSpan, find_ibans, find_numbers, find_streets

# Most messages contain none of these characters; nearly every secret contains one. `_has_secret_word` finds the rest.
_HINT = re.compile("[0-9０-９@＠/／:：=＝码碼令号號钥鑰]")
_ASCII_HINT = re.compile("[0-9@/:=]")  # the ASCII part of `_HINT`, twice as fast

_FOLDED = str.maketrans(
    "０１２３４５６７８９＠／：＝＋（）－．，＃＆？＿　\u00a0\u202f\u2009\u2010\u2011\u2012\u2013\u2212",
    "0123456789@/:=+()-.,#&?_    -----",
)
TOKEN_PREFIX = re.compile(
    r"sk-(?:ant-|proj-|or-)?|(?:sk|pk|rk)_(?:live|test)_|gh[pousr]_|github_pat_|glpat-|(?:AKIA|ASIA)|xox[a-z]-|xapp-|AIza"
    r"|ya29\.|hf_|npm_|pypi-|SG\.|gsk_|r8_|shp(?:at|ss|ca)_|dop_v1_|eyJ|whsec_|tvly-|nvapi-|pplx-"
)
"""Prefixes of the tokens of well-known services."""

_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-[\w-]{16,}|(?:sk|pk|rk)_(?:live|test)_\w{10,}|gh[pousr]_\w{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}|AIza[\w-]{30,}"
    r"|ya29\.[\w.-]{20,}|hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{20,}|pypi-[\w-]{20,}|SG\.[\w-]{10,}\.[\w-]{10,}"
    r"|gsk_\w{20,}|r8_\w{20,}|shp(?:at|ss|ca)_\w{20,}|dop_v1_\w{20,}|whsec_[\w+/=]{20,}|tvly-[\w-]{16,}"
    r"|nvapi-[\w-]{20,}|pplx-\w{20,}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)",
    re.ASCII,
)
_BOT = re.compile(
    r"(?<![A-Za-z0-9])[0-9]{8,10}:([\w-]{33,37})(?![\w-])"  # Telegram
    r"|(?<![\w.-])[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{27,45}(?![\w-])",  # Discord
    re.ASCII,
)
_BLOCK = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(.*?)(?:-----END|\Z)", re.DOTALL)
_ASSIGNED = re.compile(
    r"(?:(?<![A-Za-z])(?:api|access|auth|bearer|refresh|bot|session|client|secret|private|app|license|recovery"
    r"|account|shared|storage|signing|encryption|master|deploy|webhook)?[_ -]?"
    r"(?:token|secret|key)s?|令牌|密钥|秘钥)[\"']?\s*(?::|=|is\b|->|是|为)\s*[\"'`]?(?:Bearer )?([\w\-./+=]{8,256})"
    r"|(?<![A-Za-z])Bearer\s+([\w\-./+=]{16,1024})",
    re.ASCII | re.IGNORECASE,
)
_LONG_NAMED = 24
_SCRAMBLED = re.compile(
    r"(?:token|secret|key|密钥|秘钥|私钥|金鑰|令牌)[\"']?\s*(?:(?::|=|is\b|->|是|为|：)\s*)?[\"'`]?([A-Za-z_-]{20,256})(?![A-Za-z_-])",
    re.ASCII | re.IGNORECASE,
)
_RUN = re.compile(r"[\w+-]{24,}", re.ASCII)
_KEY = re.compile(r"(?<![A-Za-z0-9/+.:_=~-])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=_-])")
"""Secret keys of AWS, which may contain slashes; file paths have fewer capitals."""
_PIECES = re.compile(r"[A-Z]+|[a-z]+|[0-9]+")


def find_secrets(text: str, kinds: frozenset[PrivateKind]) -> list[SecretSpan]:
    """The secrets of these kinds, in order, not overlapping. Of nested ones the outer one is returned."""
    hint = _ASCII_HINT if text.isascii() else _HINT
    if not hint.search(text) and not _has_secret_word(text):
        return []
    if not text.isascii():
        text = text.translate(_FOLDED)  # maps single characters, so positions stay valid
    spans: list[SecretSpan] = []
    for detected_kinds, detect in _DETECTORS:
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
    if len(text) >= _LONG_NAMED and ("oken" in text or "ecret" in text or "key" in text.lower()):
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


# Tokens and passwords ------------------------------------------------------------------------------------------------


def _tokens(text: str) -> Iterator[SecretSpan]:
    if len(text) < 12:
        return
    for match in _BLOCK.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "token", "block")
    for match in _PREFIXED.finditer(text):
        yield SecretSpan(match.start(), match.end(), "token", "token")
    for match in _BOT.finditer(text):
        start = max(match.start(), match.start(1))  # the bot's id is not secret
        yield SecretSpan(start, match.end(), "token", "word")
    for match in _ASSIGNED.finditer(text):
        group = 1 if match[1] else 2
        value = match[group].rstrip(".")
        if (
            any(map(str.isdigit, value))
            and any(map(str.isalpha, value))
            and "://" not in text[match.start(group) :][:12]
        ):
            yield SecretSpan(match.start(group), match.start(group) + len(value), "token", "token")


def _scrambled(text: str) -> Iterator[SecretSpan]:
    """Letters after a word for a key, with as many capitals as in random text; identifiers in programs have fewer."""
    if len(text) < _LONG_NAMED:
        return
    for match in _SCRAMBLED.finditer(text):
        letters = [character for character in match[1] if character.isalpha()]
        capitals = sum(map(str.isupper, letters))
        share = min(capitals, len(letters) - capitals) / max(1, len(letters))
        in_row = sum(len(piece) - 1 for piece in _PIECES.findall(match[1]) if piece.isupper())
        if share >= 0.4 or (share >= 0.25 and in_row >= 2):
            yield SecretSpan(match.start(1), match.end(1), "token", "word")


def _random(text: str) -> Iterator[SecretSpan]:
    """Long random strings: many changes between capitals, lower case letters and digits."""
    if len(text) < 24:
        return
    for match in _RUN.finditer(text):
        run = match[0]
        pieces = _PIECES.findall(run)
        digits = sum(map(str.isdigit, run))
        capitals = sum(map(str.isupper, run))
        lower = sum(map(str.islower, run))
        mixed = capitals >= 2 and lower >= 2 and digits >= 2 and len(pieces) * 3.5 >= len(run)
        one_case = digits >= 6 and capitals + lower >= 6 and len(pieces) * 4.5 >= len(run) and min(capitals, lower) == 0
        if mixed or one_case:
            yield SecretSpan(match.start(), match.end(), "token", "word")
    for match in _KEY.finditer(text) if len(text) >= 40 else ():
        counts = [sum(map(test, match[0])) for test in (str.isdigit, str.isupper, str.islower)]
        if counts[0] >= 1 and counts[1] >= 6 and counts[2] >= 6:
            yield SecretSpan(match.start(), match.end(), "token", "word")


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


_DETECTORS: tuple[tuple[frozenset[PrivateKind], Callable[[str], Iterator[SecretSpan]]], ...] = (
    (frozenset(("url",)), _links),
    (frozenset(("email",)), _emails),
    (frozenset(("token",)), _tokens),
    (frozenset(("iban",)), find_ibans),
    (frozenset(("id", "card", "phone")), find_numbers),
    (frozenset(("ip",)), _networks),
    (frozenset(("password",)), _passwords),
    (frozenset(("address",)), find_streets),
    (frozenset(("token",)), _random),
    (frozenset(("token",)), _scrambled),
)
"""The most reliable first: of two equal spans the earlier one counts."""
