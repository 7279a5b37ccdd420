"""Finds phone numbers.

Some forms are phone numbers anywhere. Others are those of a country, by the rules in `phonenumbers`, and count only
where that country is likely: dates, prices, scores and order numbers are far more frequent than phone numbers.
Full-width digits must have been folded to ASCII, as `find_secrets` does.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from phonenumbers import Leniency, PhoneNumberMatcher, PhoneNumberType, number_type

from training.privacy.secret_span import SecretSpan

DATE = re.compile(
    r"(?<![0-9])(?:(?:19|20)[0-9]{2}[-/. ][01]?[0-9][-/. ][0-3]?[0-9]"
    r"|[0-3]?[0-9][-/.][0-3]?[0-9][-/.](?:19|20)?[0-9]{2})(?![0-9])"
)

_FORMS = (
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
    (
        11,
        11,
        re.compile(
            r"(?<![0-9A-Za-z.+-])8[ -]?(?:\([3489][0-9]{2}\)|9[0-9]{2})[ -]?[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{2}"
            r"(?![0-9A-Za-z]|[.-][0-9])"
        ),
    ),
    (10, 11, re.compile(r"(?<![0-9A-Za-z.+-])\([1-9][0-9]\) ?9?[0-9]{4}[ -][0-9]{4}(?![0-9A-Za-z]|[.-][0-9])")),
)
"""Minimum and maximum digits, and the form: with + or 00, Chinese mobile and landline, leading 0, North American,
Russian with the 8 that is dialled first, Brazilian with the area in parentheses."""
_LOCAL = re.compile(r"(?<![0-9])\(?[1-9][0-9]{0,3}\)?[0-9 .-]{4,14}[0-9](?![0-9A-Za-z])")
_FRENCH = re.compile(r"(?<![0-9A-Za-z.+-])0[1-9]([.-])[0-9]{2}(?:\1[0-9]{2}){3}(?![0-9A-Za-z]|[.-][0-9])")
"""Its beginning looks like a date."""
_ANNOUNCED = re.compile(
    r"(?:(?<![A-Za-z])(?:phone|tel|telephone|mobile|cell|whatsapp|(?:call|text|ring|reach) me(?: at| on)?"
    r"|my number|tel[eé]fono|m[oó]vil|celular|telefone|telem[oó]vel|portable|handy|handynummer|telefonnummer"
    r"|telefon(?:um)?|numaram|cebim|zap)(?![A-Za-z])"
    r"|手机|电话|座机|联系方式|телефон\w*|мобильн\w*|позвони\w*|звони(?:те)?|номер(?: телефона)?|फोन|फ़ोन|मोबाइल|नंबर"
    r"|電話番号|電話|携帯|전화번호|전화|핸드폰|휴대폰|연락처)(?:\s|number|no\.|is|es|é|est|ist|[:=#]|号码?|是|为|打|は|는|은){0,5}$",
    re.IGNORECASE,
)
_HOTLINE_DIGITS = 10
"""Digits of company hotlines such as 400-820-8820 (China) and 800 numbers (North America), which are not personal."""

_INTERNATIONAL = re.compile(r"(?<![0-9A-Za-z+])\(?\+ ?\(?[1-9][0-9 ()./-]{4,24}[0-9](?![0-9A-Za-z%])")
_NATIONAL = re.compile(
    r"(?<![0-9A-Za-z+.:,#*_/=-])\(?[0-9][0-9 ()./-]{5,20}[0-9](?![0-9A-Za-z%_*=]|[.,:/-][0-9]|:[A-Za-z])"
)
_MIN_UNGROUPED = 9
"""Digits in a row, without a prefix or a gap, that may be a number of the country; eight may be a date."""

_PERSONAL = frozenset(
    (
        PhoneNumberType.FIXED_LINE,
        PhoneNumberType.MOBILE,
        PhoneNumberType.FIXED_LINE_OR_MOBILE,
        PhoneNumberType.PERSONAL_NUMBER,
        PhoneNumberType.VOIP,
    )
)
_MONEY = "$€£¥₹₽₺₩฿₴₪￥"
_ORDERED = re.compile(
    r"(?:(?<![^\W\d_])(?:order|ticket|invoice|isbn|tracking|parcel|booking|population|visits?|views?|sku|ean|bestell\w*"
    r"|rechnung\w*|auftrag\w*|artikel\w*|kunden(?:nummer|nr)|sendung\w*|einwohner|pedido|factura|orden|reserva|art[ií]culo"
    r"|seguimiento|expediente|protocolo|nota fiscal|fatura|boleto|rastreio|commande|facture|colis|dossier|suivi|ordine"
    r"|sipari[sş]|kargo|takip|заказ\w*|накладн\w*|трек(?:-?номер)?|артикул\w*|сч[её]т-?\w*|население|ऑर्डर|टिकट|pnr)(?![^\W\d_])"
    r"|订单|单号|快递|运单|序列号|流水|注文|伝票|追跡|品番|주문|송장|운송장|예약)[^0-9\n]{0,12}$",
    re.IGNORECASE,
)
"""What stands before the number of a thing."""
_COUNTED_BEFORE = re.compile(
    r"(?:(?<![^\W\d_])(?:ref(?:erence)?|case|serial|model|version|pages?|code|id|no|nr|item|article|account|build|nota"
    r"|c[oó]digo|r[eé]f|код|билет|версия|sets?|mix|ports?|iso|rfc|din|cep|plz|zip|ts|time|rs|r\$|usd|eur|gbp|inr|nt|hk|us)(?![^\W\d_])|编号|番号|邮编|№|#)"
    r"[ .:#№]{0,3}$"
    rf"|[{re.escape(_MONEY)}] ?$",
    re.IGNORECASE,
)
"""What may stand right before a number that counts something."""
_COUNTED_AFTER = re.compile(
    rf" ?(?:[{re.escape(_MONEY)}%°×]|(?:people|views|users|euros?|dollars?|usd|eur|rs|inr|rupees|km|kg"
    r"|habitantes|personas|pesos|visitas|vistas|reais|pessoas|inscritos|habitants|personnes|vues|einwohner|menschen|aufrufe|stück|kişi"
    r"|lira|tl|görüntülenme|руб\w*|человек|просмотр\w*|жител\w*|рупий|लोग|रुपये|रुपए|रु|bytes?|steps|points)(?![^\W\d_])"
    r"|元|块|人|次|个|円|人|回|件|원|명|번째|회)",
    re.IGNORECASE,
)
_REACH = 32
"""Characters before a number in which a word may say what it is."""
_YEARS = re.compile(r"(?:(?:1[5-9]|20)[0-9]{2}[ ./-]*)+")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:([ .])[0-9]{3})(?:\1[0-9]{3})*")
_CLOCK = re.compile(r"1[0-9]{9}(?:[0-9]{3})?")
"""Seconds or milliseconds since 1970."""
_PAIRS = re.compile(r"[0-9]{2}(?: [0-9]{2}){5,}")
"""Drawn numbers; a French phone number has five pairs."""
_DECIMALS = re.compile(r"[0-9]{1,2}\.[0-9]{3}[0-9. ]*")
_BOOK = re.compile(r"97[89][ -]?[0-9][0-9 -]+")
_GAP = re.compile(r"[ ()./-]+")


def find_phones(text: str, get_regions: Callable[[], Sequence[str]]) -> Iterator[SecretSpan]:
    """Phone numbers, some of them more than once.

    Args:
        text: with at least seven digits.
        get_regions: the countries whose numbers it may contain; asked only if something looks like one.
    """
    found = [SecretSpan(*match.span(), "phone", "phone") for match in _FRENCH.finditer(text)]
    found += _by_form(text)
    for match in _LOCAL.finditer(text):
        if _is_new(found, match) and _ANNOUNCED.search(text[max(0, match.start() - _REACH) : match.start()]):
            found += _plausible(match.start(), match[0], 7, 12)
    yield from found
    if "+" in text:
        for match in _INTERNATIONAL.finditer(text):
            if _is_new(found, match):
                for number in PhoneNumberMatcher(match[0], None, leniency=Leniency.VALID):
                    yield SecretSpan(match.start() + number.start, match.start() + number.end, "phone", "phone")
    regions: Sequence[str] | None = None
    for match in _NATIONAL.finditer(text):
        if not _is_new(found, match) or not _may_be_phone(text, match.start(), match.end()):
            continue
        if regions is None:
            regions = get_regions()
        place = next((place for region in regions for place in _numbers_of(match[0], region)), None)
        if place is not None:
            yield SecretSpan(match.start() + place[0], match.start() + place[1], "phone", "phone")


def _by_form(text: str) -> Iterator[SecretSpan]:
    for min_digits, max_digits, form in _FORMS:
        for match in form.finditer(text):
            if match[0].isdecimal() and _ORDERED.search(text[max(0, match.start() - _REACH) : match.start()]):
                continue
            yield from _plausible(match.start(), match[0], min_digits, max_digits)


def _is_new(found: list[SecretSpan], match: re.Match[str]) -> bool:
    return not any(span.start < match.end() and match.start() < span.end for span in found)


def _plausible(start: int, text: str, min_digits: int, max_digits: int) -> Iterator[SecretSpan]:
    text = text.rstrip(" ./-(")
    plain = "".join(filter(str.isdigit, text))
    digits = len(plain)
    if _is_hotline(plain):
        return
    if (
        min_digits <= digits <= max_digits
        and not DATE.search(text)
        and not _PAIRS.fullmatch(text)
        and not (text[0] == "+" and text.endswith("00000"))
    ):
        yield SecretSpan(start, start + len(text), "phone", "phone")


def _may_be_phone(text: str, start: int, end: int) -> bool:
    """Whether digits with gaps are not a date, years, an amount, a decimal, a book's number or said to be counted."""
    number = text[start:end]
    if DATE.search(number) or any(form.fullmatch(number) for form in (_YEARS, _CLOCK, _BOOK, _PAIRS, _DECIMALS)):
        return False
    gaps = set(_GAP.findall(number))
    if gaps == {"/"} or (gaps == {"."} and number.count(".") == 1):
        return False
    is_amount = _THOUSANDS.fullmatch(number) is not None
    if (is_amount and "." in number) or len(number) - sum(map(len, _GAP.findall(number))) < 7:
        return False
    return not is_counted(text, start, end)


def is_counted(text: str, start: int, end: int) -> bool:
    """Whether the words around a number say that it counts something, or is the number of a thing."""
    before = text[max(0, start - _REACH) : start]
    return bool(_ORDERED.search(before) or _COUNTED_BEFORE.search(before) or _COUNTED_AFTER.match(text, end))


def _numbers_of(candidate: str, region: str) -> Iterator[tuple[int, int]]:
    """(start, end) of the personal numbers of a country."""
    for number in PhoneNumberMatcher(candidate, region, leniency=Leniency.VALID):
        kind, raw = number_type(number.number), number.raw_string
        plain = "".join(filter(str.isdigit, raw))
        if kind not in _PERSONAL or len(plain) < 7 or _is_hotline(plain):
            continue
        if raw[0] in "0(":
            yield number.start, number.end
        elif raw.isdecimal():
            if kind == PhoneNumberType.MOBILE and len(plain) >= _MIN_UNGROUPED:
                yield number.start, number.end
        elif any(PhoneNumberMatcher(raw, region, leniency=Leniency.STRICT_GROUPING)):
            yield number.start, number.end


def _is_hotline(digits: str) -> bool:
    return len(digits) == _HOTLINE_DIGITS and digits.startswith(("400", "800"))
