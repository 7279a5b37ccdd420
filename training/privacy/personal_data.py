"""Finds personal numbers and addresses: phone numbers, identity numbers, cards, bank accounts, street addresses.

Numbers are verified where possible (checksums, lengths). Others must have a form that dates, prices and scores lack,
or follow a word that announces them. Full-width digits must have been folded to ASCII, as `find_secrets` does.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from doppel.config import PrivateKind

SecretForm = Literal[
    "email",
    "phone",
    "cn_id",
    "number",
    "card",
    "iban",
    "ipv4",
    "ipv6",
    "token",
    "word",
    "block",
    "street",
    "cn_street",
    "de_street",
    "name",
]
"""How a secret is written; determines how its stand-in is made."""


SecretKind = PrivateKind | Literal["name"]
"""What kind of secret it is. `training.privacy.names` finds the names."""


class SecretSpan(NamedTuple):
    """A secret at `text[start:end]`."""

    start: int
    end: int
    kind: SecretKind
    form: SecretForm


_NUMBER = re.compile(r"[0-9](?:[ ()./\-]{0,3}[0-9]){6}")
_DATE = re.compile(
    r"(?<![0-9])(?:(?:19|20)[0-9]{2}[-/. ][01]?[0-9][-/. ][0-3]?[0-9]"
    r"|[0-3]?[0-9][-/.][0-3]?[0-9][-/.](?:19|20)?[0-9]{2})(?![0-9])"
)


# Numbers with a checksum or a fixed form -----------------------------------------------------------------------------

_CN_ID = re.compile(
    r"(?<![0-9A-Za-z])[1-9][0-9]{5}([ -]?)(?:18|19|20)[0-9]{2}[01][0-9][0-3][0-9]\1[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
)
_CN_ID_ANNOUNCED = re.compile(r"身份证[^0-9\n]{0,8}([1-9][0-9]{14}(?:[0-9]{2}[0-9Xx])?)(?![0-9A-Za-z])")
_SSN = re.compile(r"(?<![0-9A-Za-z-])(?!000|666)[0-8][0-9]{2}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![0-9A-Za-z]|-[0-9])")
_SSN_ANNOUNCED = re.compile(
    r"(?:\bssn\b|social security)[^0-9\n]{0,20}([0-9]{3} ?[0-9]{2} ?[0-9]{4})(?![0-9])", re.ASCII | re.IGNORECASE
)
_INSURANCE = re.compile(
    r"(?<![0-9A-Za-z])(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]( ?)[0-9]{2}\1[0-9]{2}\1[0-9]{2}"
    r" ?[A-D](?![0-9A-Za-z])"
)
"""British National Insurance numbers, with the prefixes that are in use."""
_INSURANCE_ANNOUNCED = re.compile(
    r"(?:\bni(?:no)?\b|national insurance)[^0-9\n]{0,20}?\b([A-Z]{2}(?: ?[0-9]{2}){3} ?[A-D])(?![0-9A-Za-z])",
    re.ASCII | re.IGNORECASE,
)
_PASSPORT_ANNOUNCED = re.compile(
    r"(?:(?<![A-Za-z])passport|护照|護照|通行证|通行證|身[份分][证證](?:字?[号號])?)"
    r"(?:\s|number|no\.?|is|[:#]|[号號][码碼]?|是|为){0,5}([A-Z]{1,2}[0-9]{7,9})(?![0-9A-Za-z])",
    re.ASCII | re.IGNORECASE,
)
_CARD = re.compile(r"(?<![0-9A-Za-z])(?<![0-9][ .-])[2-6][0-9]{3}(?:[ -]?[0-9]){9,15}(?![0-9A-Za-z])")
_CARD_ANNOUNCED = re.compile(
    r"(?:card number|卡号|账号|帐号|银行卡|信用卡|储蓄卡|[工农建招中交]行卡)[^0-9\n]{0,8}"
    r"([2-6][0-9]{3}(?:[ -]?[0-9]){11,16})(?![0-9])",
    re.IGNORECASE,
)
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}(?: ?[A-Za-z0-9]){11,30}")
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        "([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
        "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LI21 LT20 LU20 "
        "LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SD18 SE24 "
        "SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20",
    )
}


def is_cn_id(number: str) -> bool:
    """Whether the last of the 18 characters of a Chinese identity number is the right check digit (ISO 7064)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    rest = sum(weight * int(digit) for weight, digit in zip(weights, number[:17], strict=True)) % 11
    return "10X98765432"[rest] == number[17].upper()


def is_luhn(digits: str) -> bool:
    """Whether the last digit of a card number is the right check digit (Luhn algorithm)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + index % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def is_iban(letters: str) -> bool:
    """Whether an IBAN, in capitals and without spaces, has its country's length and the right check digits."""
    if _IBAN_LENGTHS.get(letters[:2]) != len(letters) or not 2 <= int(letters[2:4]) <= 98:
        return False
    return int("".join(str(int(letter, 36)) for letter in letters[4:] + letters[:4])) % 97 == 1


def _identities(text: str) -> Iterator[SecretSpan]:
    for match in _CN_ID.finditer(text):
        if is_cn_id(re.sub("[ -]", "", match[0])):
            yield SecretSpan(match.start(), match.end(), "id", "cn_id")
    for match in _CN_ID_ANNOUNCED.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "id", "cn_id" if len(match[1]) == 18 else "number")
    for match in _SSN.finditer(text):
        yield SecretSpan(match.start(), match.end(), "id", "number")
    for match in _SSN_ANNOUNCED.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "id", "number")
    for match in _PASSPORT_ANNOUNCED.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "id", "number")


def _cards(text: str) -> Iterator[SecretSpan]:
    for match in _CARD.finditer(text):
        digits = re.sub("[ -]", "", match[0])
        has_issuer = (
            digits[0] in "456" or digits[:2] in ("34", "35", "36", "37", "38", "39", "30") or "22" <= digits[:2] <= "27"
        )
        if has_issuer and is_luhn(digits):
            yield SecretSpan(match.start(), match.end(), "card", "card")
    for match in _CARD_ANNOUNCED.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "card", "card")


def find_ibans(text: str) -> Iterator[SecretSpan]:
    """International bank account numbers."""
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        end, letters = match.start(), ""
        for letter in match[0]:  # the match may be longer than the number
            if len(letters) == length:
                break
            end += 1
            letters += letter.strip()
        if length and (end == len(text) or not text[end].isalnum() or not text[end].isascii()):
            number = letters.upper()
            if len(number) == length and (is_iban(number) or number[2:4] == "00"):
                yield SecretSpan(match.start(), end, "iban", "iban")


# Phone numbers -------------------------------------------------------------------------------------------------------

_PHONES = (
    (9, 15, re.compile(r"(?<![0-9A-Za-z+])\+[1-9][0-9]{0,3}(?:[ ./-]{0,2}\(?[0-9]{1,10}\)?){1,6}(?![0-9A-Za-z%])")),
    (
        11,
        17,
        re.compile(
            r"(?<![0-9A-Za-z+./:-])(?<![0-9] )00[1-9][0-9]{0,3}(?:[ /-]?\(?[0-9]{1,10}\)?){1,6}(?![0-9A-Za-z%])"
        ),
    ),
    (
        11,
        13,
        re.compile(r"(?<![0-9A-Za-z.-])(?:86[ -]?)?1[3-9][0-9]([ .-]?)[0-9]{4}\1[0-9]{4}(?![0-9A-Za-z]|[.-][0-9])"),
    ),
    (
        11,
        11,
        re.compile(r"(?<![0-9A-Za-z.-])1[3-9][0-9][ -][0-9]{3}[ -][0-9]{2}[ -]?[0-9]{3}(?![0-9A-Za-z]|[.-][0-9])"),
    ),
    (
        10,
        12,
        re.compile(
            r"(?<![0-9A-Za-z.+-])(?<![0-9] )\(?0(?:10|2[0-9]|[3-9][0-9]{2})\)?"
            r"[ -]?[2-8][0-9]{2,3}[ -]?[0-9]{4}(?![0-9A-Za-z])"
        ),
    ),
    (
        9,
        12,
        re.compile(
            r"(?<![0-9A-Za-z.+/:-])(?<![0-9] )\(?0[1-9][0-9]{0,4}\)?"
            r"(?:[ /-]{1,2}[0-9]{2,9}){1,5}(?![0-9A-Za-z.:]|[/-][0-9])"
        ),
    ),
    (10, 11, re.compile(r"(?<![0-9A-Za-z.+/:-])0[1-9][0-9]{8,9}(?![0-9A-Za-z.:]|[/-][0-9])")),
    (
        10,
        11,
        re.compile(
            r"(?<![0-9A-Za-z.+-])(?:1[ .-])?\((?!400|800)[2-9][0-9]{2}\) ?"
            r"[0-9]{3}[ .-][0-9]{4}(?![0-9A-Za-z]|[.-][0-9])"
        ),
    ),
    (
        10,
        11,
        re.compile(
            r"(?<![0-9A-Za-z.+-])(?:1[.-])?(?!400|800)[2-9][0-9]{2}([.-])[0-9]{3}\1[0-9]{4}(?![0-9A-Za-z]|[.-][0-9])"
        ),
    ),
    (
        10,
        11,
        re.compile(r"(?<![0-9A-Za-z.+-])(?:1 )?(?!400|800)[2-9][0-9]{2} [0-9]{3}-[0-9]{4}(?![0-9A-Za-z]|[.-][0-9])"),
    ),
)
"""Minimum and maximum digits, and the form: with + or 00, Chinese mobile and landline, leading 0, North American."""
_PHONE_ANNOUNCED = re.compile(
    r"(?:(?<![A-Za-z])(?:phone|tel|telephone|mobile|cell|whatsapp|(?:call|text|ring|reach) me (?:at|on)"
    r"|my number)(?![A-Za-z])"
    r"|手机|电话|座机|联系方式)(?:\s|number|no\.|is|[:=#]|号码?|是|为|打){0,5}"
    r"(\(?[1-9][0-9]{0,3}\)?[0-9 .-]{4,14}[0-9])(?![0-9A-Za-z])",
    re.ASCII | re.IGNORECASE,
)


_HOTLINE_DIGITS = 10
"""Digits of company hotlines such as 400-820-8820 (China) and 800 numbers (North America), which are not personal."""


def _phones(text: str) -> Iterator[SecretSpan]:
    for min_digits, max_digits, form in _PHONES:
        for match in form.finditer(text):
            yield from _phone(match.start(), match[0], min_digits, max_digits)
    for match in _PHONE_ANNOUNCED.finditer(text):
        yield from _phone(match.start(1), match[1], 7, 12)


def _phone(start: int, text: str, min_digits: int, max_digits: int) -> Iterator[SecretSpan]:
    text = text.rstrip(" ./-(")
    plain = "".join(filter(str.isdigit, text))
    digits = len(plain)
    if digits == _HOTLINE_DIGITS and plain.startswith(("400", "800")):
        return
    if (
        min_digits <= digits <= max_digits
        and not _DATE.search(text)
        and not (text[0] == "+" and text.endswith("00000"))
    ):
        yield SecretSpan(start, start + len(text), "phone", "phone")


# Streets -------------------------------------------------------------------------------------------------------------

_STREET = re.compile(
    r"(?<![0-9A-Za-z.,$€£#-])[1-9][0-9]{0,4}[A-Za-z]?,? (?:[NSEW]\.? |North |South |East |West )?"
    r"(?:(?!(?:Min|Minute|Minutes|Hour|Hours|Mile|Miles|Day|Star|Way|Lane)\b)"
    r"(?:[0-9]{1,3}(?:st|nd|rd|th) |[A-Z][A-Za-z'’-]+ ){1,3}"
    r"(?:[Ss]treet|St|[Aa]venue|Ave|[Rr]oad|Rd|[Bb]oulevard|Blvd|[Ll]ane|Ln|[Dd]rive|Dr|Court|Ct|Place|Pl|Terrace|Square"
    r"|Parkway|Pkwy|Highway|Hwy|Crescent|Way|Close)"
    r"|(?!(?:way|lane|mph|kph|kmh|miles?|feet|foot|hours?|minutes?|days?|person|dirt|busy|the|this|that|other|more|of|on|in|to|a)\b)"
    r"[a-z]{3,16} (?:street|avenue|boulevard|road|lane))\b\.?"
    r"(?:,? (?:[Aa]pt|[Aa]partment|[Ss]uite|Ste|[Uu]nit|[Ff]lat|[Ff]loor|[Rr]oom)\.? ?#?[0-9A-Za-z-]{1,6}\b"
    r"|,? #[0-9A-Za-z-]{1,6})?"
    r"(?:,? (?:[A-Z][a-z]+ ?){1,3},? [A-Z]{2} [0-9]{5}(?:-[0-9]{4})?)?",
    re.ASCII,
)
_BOX = re.compile(r"(?<![A-Za-z])P\.? ?O\.? Box ([0-9]{1,6})(?![0-9])", re.ASCII | re.IGNORECASE)
_CN_NUMBER = "[0-9一二三四五六七八九十百零〇]{1,6}"
_CN_ROOM = rf"(?:[甲乙丙]|之{_CN_NUMBER}|[-－][0-9]{{1,4}})?(?:号楼|号院|弄|号|栋|幢|座|单元|层|楼|室|房|户)"
_CN_STREET = re.compile(
    r"[^\W0-9a-zA-Z_在住到去来是寄送了的市区县镇乡省我你他她它们和从给走顺逛上]{1,6}(?<![顺逛走赶迷思出半套铁网问带让公])"
    rf"(?:路|街|大道|巷|胡同|里弄)(?:[东西南北中][路街段])?{_CN_NUMBER}(?:弄|号(?![线前后放早晚上下见开去来回发截]))"
    rf"(?:{_CN_NUMBER}{_CN_ROOM}|[A-Za-z]?[0-9]{{1,4}}{_CN_ROOM}|[0-9]{{3,4}}(?![0-9]))*"
    rf"|[^\W0-9a-zA-Z_在住到去来是寄送了的市区县镇乡省我你他她它们和从给]{{2,6}}(?:小区|花园|公寓|家园|新村|苑|大厦|广场|嘉园|名邸|[一二三四五六七八九十]区)"
    rf"(?:{_CN_NUMBER}(?:号楼|栋|幢|座|单元)|[A-Za-z](?:栋|座))(?:{_CN_NUMBER}{_CN_ROOM}|[0-9]{{3,4}}(?![0-9]))*"
)


_DE_HINT = re.compile("(?:tra(?:ß|ss)e|tr|asse|llee|ussee|damm|ufer|weg|latz|ring)\\.? ?[0-9]")
_DE_STREET = re.compile(
    r"(?<![\w-])(?:"
    r"(?:[A-ZÄÖÜa-zäöü][a-zäöüß]{2,24}|(?:[A-ZÄÖÜ][a-zäöüß.]{1,20}[ -]){1,3})(?:[Ss]traße|[Ss]trasse|[Ss]tr\.?)"
    r"|[A-ZÄÖÜ][a-zäöüß]{2,20}(?:gasse|allee|chaussee|damm|ufer)"
    r"|(?:[A-ZÄÖÜ][a-zäöüß.]{2,20}[ -]){1,2}(?:Allee|Gasse|Chaussee)"
    r"|(?!(?:Heim|Hin|Rück|Um|Aus|Rad|Geh|Fuß|Schul|Arbeits|Park|Sitz|Steh|Spiel|Sport|Camping|Rast|Tennis|Fußball|Lager"
    r"|Ausbildungs|Studien|Kita|Stell|Liege|Schlaf|Ehe|Ohr|Schlüssel|Box|Tabellen|Lösungs|Bildungs|Mittel|Welt|Ess|Bau"
    r"|Stamm|Praktikums|Kindergarten|Betreuungs|Start|Ver|Be)(?:s|en)?(?:weg|platz|ring))"
    r"[A-ZÄÖÜ][a-zäöüß]{2,20}(?:weg|platz|ring))"
    r" ?(?<![a-z])[1-9][0-9]{0,2}(?: ?[a-h])?(?![0-9A-Za-z,.:]*[0-9A-Za-zäöüß%€])"
    r"(?! ?(?:Min|Std|Stunde|Tag|Uhr|Euro|EUR|[Mm]al\b|[Kk]m\b|m\b|Meter|Leute|Prozent|Mio|Jahre|Wochen|Monate|Punkte"
    r"|€|%))"
    r"(?:,? (?:D-)?[0-9]{5}(?= [A-ZÄÖÜ][a-zäöüß]))?"
)


def find_streets(text: str) -> Iterator[SecretSpan]:
    """English, German and Chinese addresses with at least a street and a house number."""
    for match in _DE_STREET.finditer(text) if _DE_HINT.search(text) else ():
        yield SecretSpan(match.start(), match.end(), "address", "de_street")
    for match in _STREET.finditer(text):
        yield SecretSpan(match.start(), match.end(), "address", "street")
    for match in _BOX.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "address", "number")
    if not text.isascii():
        for match in _CN_STREET.finditer(text):
            yield SecretSpan(match.start(), match.end(), "address", "cn_street")


def find_numbers(text: str) -> Iterator[SecretSpan]:
    """Identity numbers, card numbers and phone numbers."""
    for match in _INSURANCE.finditer(text):
        yield SecretSpan(match.start(), match.end(), "id", "number")
    for match in _INSURANCE_ANNOUNCED.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "id", "number")
    if _NUMBER.search(text):
        yield from _identities(text)
        yield from _cards(text)
        yield from _phones(text)
