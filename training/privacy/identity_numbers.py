"""Finds the numbers by which states and banks know people: identity, tax and insurance numbers, cards, bank accounts.

`python-stdnum` checks them. Numbers whose form or check digits are weak count only after a word that announces them.
Full-width digits must have been folded to ASCII, as `find_secrets` does.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module

from stdnum import iban, luhn
from stdnum.iso7064 import mod_11_2

from training.privacy.phones import is_counted
from training.privacy.secret_span import SecretForm, SecretSpan

_LEFT, _RIGHT = "(?<![0-9A-Za-z])", "(?![0-9A-Za-z])"
_DAY = "(?:0[1-9]|[12][0-9]|3[01])"
_MONTH = "(?:0[1-9]|1[0-2])"

# Numbers that their form and check digits tell ------------------------------------------------------------------------

_CN_ID = re.compile(
    rf"{_LEFT}[1-9][0-9]{{5}}([ -]?)(?:18|19|20)[0-9]{{2}}[01][0-9][0-3][0-9]\1[0-9]{{3}}[0-9Xx]{_RIGHT}"
)
_SSN = re.compile(r"(?<![0-9A-Za-z-])(?!000|666)[0-8][0-9]{2}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![0-9A-Za-z]|-[0-9])")
_INSURANCE = re.compile(
    r"(?<![0-9A-Za-z])(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]( ?)[0-9]{2}\1[0-9]{2}\1[0-9]{2}"
    r" ?[A-D](?![0-9A-Za-z])"
)
"""British National Insurance numbers, with the prefixes that are in use."""
_CARD = re.compile(rf"{_LEFT}(?<![0-9][ .-])[2-6][0-9]{{3}}(?:[ -]?[0-9]){{9,15}}{_RIGHT}")
_IBAN = re.compile(rf"{_LEFT}[A-Za-z]{{2}}[0-9]{{2}}(?: ?[A-Za-z0-9]){{11,30}}")
_GROUP_ENDS = re.compile(_RIGHT)

_YEARS = re.compile(r"(?:(?:1[5-9]|20)[0-9]{2}[ -]?){3}")


def _snils_is_valid(number: str) -> bool:
    """Whether the check digits of a Russian insurance number are right."""
    digits = re.sub("[^0-9]", "", number)
    total = sum(weight * int(digit) for weight, digit in zip(range(9, 0, -1), digits[:9], strict=True))
    return total % 101 % 100 == int(digits[9:])


def _any(_number: str) -> bool:
    return True


def _is_years(number: str) -> bool:
    return _YEARS.fullmatch(number) is not None


@lru_cache(maxsize=64)
def _checker(country: str) -> Callable[[str], bool]:
    """The check of one of `stdnum`'s modules, which take time to load."""
    return import_module(f"stdnum.{country}").is_valid  # type: ignore[no-any-return]


_BY_FORM: tuple[tuple[str, str, SecretForm, Callable[[str], bool] | None], ...] = (
    ("br.cpf", r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", "number", None),
    (
        "es.dni",
        r"(?:[0-9]{8}[ -]?|[0-9]{2}\.[0-9]{3}\.[0-9]{3}-?)[TRWAGMYFPDXBNJZSQVHLCKEtrwagmyfpdxbnjzsqvhlcke]",
        "word",
        None,
    ),
    ("es.nie", r"[XYZxyz][ -]?[0-9]{7}[ -]?[A-Za-z]", "word", None),
    ("in_.aadhaar", r"(?<![0-9] )[2-9][0-9]{3}(?: [0-9]{4} |-[0-9]{4}-)[0-9]{4}(?![ -][0-9])", "number", None),
    ("in_.pan", r"[A-Z]{3}P[A-Z][0-9]{4}[A-Z]", "word", None),
    ("ru.snils", r"[0-9]{3}-[0-9]{3}-[0-9]{3}[ -][0-9]{2}", "number", _snils_is_valid),
    ("it.codicefiscale", r"(?i:[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z])", "word", None),
    (
        "fr.nir",
        rf"[12] ?[0-9]{{2}} ?(?:{_MONTH}|[2-9][0-9]) ?[0-9][0-9AB] ?[0-9]{{3}} ?[0-9]{{3}} ?[0-9]{{2}}",
        "number",
        None,
    ),
    ("kr.rrn", rf"[0-9]{{2}}{_MONTH}{_DAY}-[1-8][0-9]{{6}}", "number", _any),  # no check digit since 2020
    ("mx.curp", r"(?i:[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[A-Z0-9][0-9])", "word", None),
    ("cl.rut", r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-[0-9Kk]", "number", None),
    ("ar.cuit", r"(?:2[0347]|3[034])-[0-9]{8}-[0-9]", "number", None),
    ("be.nn", r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}", "number", None),
    ("se.personnummer", rf"(?:[0-9]{{2}})?[0-9]{{2}}{_MONTH}{_DAY}[-+][0-9]{{4}}", "number", None),
    ("fi.hetu", rf"{_DAY}{_MONTH}[0-9]{{2}}[-+A][0-9]{{3}}[0-9A-FHJ-NPR-Y]", "word", None),
    ("th.pin", r"[0-9]-[0-9]{4}-[0-9]{5}-[0-9]{2}-[0-9]", "number", None),
    ("ch.ssn", r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}", "number", None),
    ("cz.rc", r"[0-9]{6}/[0-9]{4}", "number", None),
    ("my.nric", rf"[0-9]{{2}}{_MONTH}{_DAY}-[0-9]{{2}}-[0-9]{{4}}", "number", None),
    ("pk.cnic", r"[1-7][0-9]{4}-[0-9]{7}-[0-9]", "number", _any),
    ("hk", r"[A-Z]{1,2}[0-9]{6}\([0-9A]\)", "word", _any),
)
"""A module of `stdnum`, or a name, the form, that of the stand-in, and the check if it is not that of the module."""
_WEAK = frozenset(("in_.aadhaar",))
"""Plain groups of digits, every tenth of which pass the check: not if a word says that something is counted."""
_BY_FORM_PATTERNS = tuple(
    (module, re.compile(_LEFT + pattern + _RIGHT), form, check) for module, pattern, form, check in _BY_FORM
)
_ANY_FORM = re.compile(rf"{_LEFT}(?=[0-9A-Za-z])(?:{chr(124).join(pattern for _, pattern, _, _ in _BY_FORM)})")

# Numbers that a word announces ----------------------------------------------------------------------------------------

_ELEVEN, _NINE = (rf"[0-9](?:[ .-]?[0-9]){{{count - 1}}}" for count in (11, 9))
_TWELVE = r"[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}"
_ANNOUNCED: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("cpf",), r"[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}[ -]?[0-9]{2}", ""),
    (("dni", "documento"), r"[0-9]{1,2}\.?[0-9]{3}\.?[0-9]{3}(?:-?[A-Za-z])?", ""),
    (("nie", "nif"), r"[XYZKLMxyzklm]?-?[0-9]{7,8}-?[A-Za-z]", ""),
    (("nif", "contribuinte"), _NINE, "pt.nif"),
    (("aadhaar", "aadhar", "adhaar", "adhar", "uidai", "आधार"), _TWELVE, ""),
    (("pan",), r"[A-Za-z]{5}[0-9]{4}[A-Za-z]", ""),
    (("снилс", "snils"), r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{2}", ""),
    (("инн", "inn"), r"[0-9]{12}", ""),
    (("паспорт", "паспорта", "паспорте", "паспортные данные"), r"[0-9]{2} ?[0-9]{2} ?(?:№ ?)?[0-9]{6}", ""),
    (("рнокпп", "іпн", "ипн", "ідентифікаційний код"), r"[0-9]{10}", ""),
    (("tc", "t.c", "kimlik", "tckn"), r"[1-9][0-9]{10}", "tr.tckimlik"),
    (("pesel",), _ELEVEN, ""),
    (("マイナンバー", "個人番号"), _TWELVE, ""),
    (("my number",), _TWELVE, "jp.in_"),
    (("주민등록번호", "주민번호", "외국인등록번호"), r"[0-9]{6}[ -]?[0-9]{7}", ""),
    (
        (
            "steuer-id",
            "steuerid",
            "steuer-identifikationsnummer",
            "steueridentifikationsnummer",
            "idnr",
            "tax id",
            "tin",
        ),
        _ELEVEN,
        "de.idnr",
    ),
    (
        ("sozialversicherungsnummer", "rentenversicherungsnummer", "sv-nummer", "rvnr"),
        r"[0-9]{2} ?[0-9]{6} ?[A-Z] ?[0-9]{3}",
        "",
    ),
    (("svnr", "sv-nummer", "sozialversicherungsnummer", "versicherungsnummer"), r"[0-9]{4} ?[0-9]{6}", "at.vnr"),
    (
        (
            "ausweis",
            "ausweisnummer",
            "personalausweis",
            "personalausweisnummer",
            "perso",
            "reisepass",
            "reisepassnummer",
        ),
        r"(?=[A-Za-z]*[0-9])[CFGHJ-NPRTV-Z][0-9A-Z]{8,9}",
        "",
    ),
    (("bsn", "burgerservicenummer"), _NINE, "nl.bsn"),
    (("cpr", "cpr-nummer"), r"[0-9]{6}[ -]?[0-9]{4}", ""),
    (("fødselsnummer", "personnummer", "fnr", "hetu", "henkilötunnus"), r"[0-9]{6}[ -]?[0-9]{3,5}[0-9A-Z]?", ""),
    (("nhs",), r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}", "gb.nhs"),
    (("sin", "social insurance", "nas"), r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}", "ca.sin"),
    (("tfn", "tax file"), r"[0-9]{3} ?[0-9]{3} ?[0-9]{3}", "au.tfn"),
    (("rut", "run"), r"[0-9]{1,2}\.?[0-9]{3}\.?[0-9]{3}-?[0-9Kk]", "cl.rut"),
    (("cédula", "cedula", "rfc", "curp"), r"(?=[A-Za-z.]*[0-9])[A-Za-z]{0,4}[0-9.]{6,12}[A-Za-z0-9]{0,8}", ""),
    (("nik", "ktp"), r"[0-9]{16}", ""),
    (("תעודת זהות", "ת.ז", 'ת"ז'), _NINE, ""),
    (
        ("oib", "jmbg", "cnp", "amka", "αμκα", "egn", "егн", "isikukood", "asmens kodas", "emšo"),
        r"[0-9](?:[ -]?[0-9]){8,12}",
        "",
    ),
    (("rodné číslo", "rodne cislo"), r"[0-9]{6}/?[0-9]{3,4}", ""),
    (("sécu", "sécurité sociale", "nir"), r"[12][ 0-9AB]{12,20}[0-9]", ""),
    (("codice fiscale",), r"[A-Za-z]{6}[0-9A-Za-z]{10}", ""),
    (("pps", "ppsn"), r"[0-9]{7}[A-Wa-w][A-Ia-i]?", ""),
    (("nric", "fin"), r"[STFGM][0-9]{7}[A-Z]", ""),
    (("national id", "identity number", "sa id", "id number"), r"[A-Z]?[0-9](?:[ -]?[0-9]){7,13}", ""),
    (("身份證", "身分證", "統號"), r"[A-Z]?[0-9](?:[ -]?[0-9]){7,13}", ""),
    (
        ("passeport", "passaporte", "pasaporte", "passaporto", "pasaport", "паспорт"),
        r"(?=[A-Z]*[0-9])[A-Z]{0,3}[0-9]{6,9}[A-Z]{0,2}",
        "",
    ),
    (("passport",), r"[A-Z]{0,2}[0-9]{8,9}", ""),
    (("护照", "護照"), r"[A-Z]{0,2}[0-9]{8,9}", ""),
    (("パスポート", "여권"), r"[A-Z]{1,2}[0-9]{7,8}", ""),
    (("身份证", "身份證"), r"[1-9][0-9]{14}(?:[0-9]{2}[0-9Xx])?", ""),
    (("ssn", "social security"), r"[0-9]{3} ?[0-9]{2} ?[0-9]{4}", ""),
    (("ni", "nino", "national insurance"), r"[A-Z]{2}(?: ?[0-9]{2}){3} ?[A-D]", ""),
)
"""Words, the form of the number after them, and the module of `stdnum` that must agree if the words mean more."""
_WORD = re.compile(r"[^\W\d_]+")


def _has_spaces(word: str) -> bool:
    """Whether a word is of a script that puts spaces between words."""
    return word[0] < "\u2e80"


def _announced(words: tuple[str, ...], number: str) -> re.Pattern[str]:
    said = "|".join(map(re.escape, words))
    if _has_spaces(words[0]):
        said = rf"(?<![^\W\d_])(?:{said})(?![^\W\d_]|-?[a-z])[^0-9\n]{{0,20}}?"
    else:
        said = rf"(?:{said})[^0-9\n]{{0,8}}?"
    return re.compile(rf"{said}(?<![0-9A-Za-z])({number}){_RIGHT}", re.IGNORECASE if _has_spaces(words[0]) else 0)


def _first_words() -> dict[str, list[tuple[re.Pattern[str], str]]]:
    """The patterns to try where a word occurs, and their modules."""
    patterns: dict[str, list[tuple[re.Pattern[str], str]]] = {}
    for words, number, module in _ANNOUNCED:
        pattern = _announced(words, number)
        for first in {_WORD.findall(word)[0] for word in words}:
            patterns.setdefault(first, []).append((pattern, module))
    return patterns


_SPACED_WORDS = {word: patterns for word, patterns in _first_words().items() if _has_spaces(word)}
_UNSPACED_WORDS = {word: patterns for word, patterns in _first_words().items() if not _has_spaces(word)}
_PASSPORT_ANNOUNCED = re.compile(
    r"(?:(?<![A-Za-z])passport|护照|護照|通行证|通行證|身[份分][证證](?:字?[号號])?)"
    r"(?:\s|number|no\.?|is|[:#]|[号號][码碼]?|是|为){0,5}([A-Z]{1,2}[0-9]{7,9})(?![0-9A-Za-z])",
    re.ASCII | re.IGNORECASE,
)
_CARD_ANNOUNCED = re.compile(
    r"(?:card number|卡号|账号|帐号|银行卡|信用卡|储蓄卡|[工农建招中交]行卡)[^0-9\n]{0,8}"
    r"([2-6][0-9]{3}(?:[ -]?[0-9]){11,16})(?![0-9])",
    re.IGNORECASE,
)


def find_identity_numbers(text: str) -> Iterator[SecretSpan]:
    """Identity, tax and insurance numbers."""
    for match in _CN_ID.finditer(text):
        if mod_11_2.is_valid(re.sub("[ -]", "", match[0]).upper()):
            yield SecretSpan(match.start(), match.end(), "id", "cn_id")
    for pattern in (_SSN, _INSURANCE):
        for match in pattern.finditer(text):
            yield SecretSpan(match.start(), match.end(), "id", "number")
    for hit in _ANY_FORM.finditer(text):
        for module, pattern, form, check in _BY_FORM_PATTERNS:
            found = pattern.match(text, hit.start())
            if not found or (module in _WEAK and (_is_years(found[0]) or is_counted(text, *found.span()))):
                continue
            if (check or _checker(module))(found[0]):
                yield SecretSpan(found.start(), found.end(), "id", form)
    for match in _PASSPORT_ANNOUNCED.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "id", "number")
    for pattern, module in _patterns_for(text):
        for match in pattern.finditer(text):
            if not module or _checker(module)(match[1]):
                yield SecretSpan(match.start(1), match.end(1), "id", _form_of(match[1]))


def _patterns_for(text: str) -> Iterator[tuple[re.Pattern[str], str]]:
    """What the words of a text may announce, and the module that must agree."""
    words = set(_WORD.findall(text.casefold()))
    for word in sorted(words & _SPACED_WORDS.keys()):
        yield from _SPACED_WORDS[word]
    if not text.isascii():
        for word, patterns in _UNSPACED_WORDS.items():
            if word in text:
                yield from patterns


def _form_of(number: str) -> SecretForm:
    letters = sum(map(str.isalpha, number))
    if len(number) == 18 and letters < 2:
        return "cn_id"
    return "word" if letters > 3 else "number"


def find_cards(text: str) -> Iterator[SecretSpan]:
    """Numbers of bank cards."""
    for match in _CARD.finditer(text):
        digits = re.sub("[ -]", "", match[0])
        has_issuer = (
            digits[0] in "456" or digits[:2] in ("34", "35", "36", "37", "38", "39", "30") or "22" <= digits[:2] <= "27"
        )
        if has_issuer and luhn.is_valid(digits):
            yield SecretSpan(match.start(), match.end(), "card", "card")
    for match in _CARD_ANNOUNCED.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "card", "card")


def find_ibans(text: str) -> Iterator[SecretSpan]:
    """International bank account numbers. The check digits of stand-ins, 00, count as right."""
    for match in _IBAN.finditer(text):
        edges = (edge.start() for edge in _GROUP_ENDS.finditer(text, match.start() + 15, match.end() + 1))
        for end in sorted((edge for edge in edges if edge <= match.end()), reverse=True):
            number = text[match.start() : end].replace(" ", "").upper()
            if number[2:4] == "00":
                number = number[:2] + iban.calc_check_digits(number) + number[4:]
            if iban.is_valid(number, check_country=False):
                yield SecretSpan(match.start(), end, "iban", "iban")
                break
