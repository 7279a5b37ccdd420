"""Makes the stand-ins for secrets: made-up values of the same kind and shape that belong to nobody.

A keyed digest of the secret determines the stand-in, so the same secret always gets the same one.
"""

import re
from collections.abc import Callable
from hashlib import shake_256

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE
from stdnum import luhn

from training.privacy.secret_span import SecretForm
from training.privacy.tokens import TOKEN_PREFIX

_DIGITS, _LOWER_CASE, _CAPITALS = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HEX = re.compile(r"[0-9a-f]{32,}")
_MAIL_HOSTS = ("example.com", "example.org", "example.net")
_RESERVED_DOMAINS = (".example", ".test", ".invalid", ".localhost")
_TEST_NETS = ("192.0.2.", "198.51.100.", "203.0.113.")
_NUMERALS = "一二三四五六七八九"
_STREET_TYPES = f"小区|花园|公寓|家园|新村|苑|大厦|广场|嘉园|名邸|大道|胡同|里弄|路|街|巷|[{_NUMERALS}十]区"
_GIVEN_NAME_CHARACTERS = "明华强丽芳军伟静敏杰"


class _DigestRandom:
    """A random source seeded by a digest."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self._bytes = b""
        self._used = 0

    def choice(self, characters: str) -> str:
        """One of the characters."""
        if self._used == len(self._bytes):
            self._bytes = shake_256(self._digest).digest(max(64, 2 * len(self._bytes)))
        self._used += 1
        return characters[self._bytes[self._used - 1] % len(characters)]

    def digits(self, count: int) -> str:
        """That many digits."""
        return "".join(self.choice(_DIGITS) for _ in range(count))

    def like(self, letter: str) -> str:
        """A character of the same class; punctuation stays."""
        if letter.isdecimal():
            return self.choice(_DIGITS)
        if letter.isupper():
            return self.choice(_CAPITALS)
        return self.choice(_LOWER_CASE) if letter.isalpha() else letter


def stand_in(secret: str, form: SecretForm, digest: bytes) -> str:
    """A value of the same form that cannot exist, always the same for the same digest."""
    return _MAKERS[form](secret, _DigestRandom(digest))


def is_reserved(text: str, form: SecretForm) -> bool:
    """Whether a mail or network address is one that nobody can have: reserved for documentation (RFC 2606, 5737, 3849).

    Phone numbers that films and manuals use are not among them: on whom somebody calls there, nobody could say.
    """
    if form == "email":
        host = re.split("[@＠]", text.lower())[-1]
        return host.endswith(_RESERVED_DOMAINS) or f".{host}".endswith(tuple(f".{name}" for name in _MAIL_HOSTS))
    if form == "ipv4":
        return text.startswith(_TEST_NETS)
    return form == "ipv6" and text.lower().startswith("2001:db8:")


def _with_digits(secret: str, digits: str) -> str:
    """The secret with its digits replaced."""
    rest = iter(digits)
    return "".join(next(rest) if letter.isdecimal() else letter for letter in secret)


def plain_digits(text: str) -> str:
    """The digits of a text in ASCII, from any script."""
    return "".join(str(int(letter)) for letter in text if letter.isdecimal())


def _email(secret: str, random: _DigestRandom) -> str:
    length = min(12, max(6, secret.index("@") if "@" in secret else 8))
    return "".join(random.choice(_LOWER_CASE) for _ in range(length)) + "@" + _MAIL_HOSTS[int(random.digits(1)) % 3]


def _phone_lead(secret: str) -> str:
    """The digits that stay: the calling code after + or 00, or the 1, 8 or 86 before a national number."""
    digits = plain_digits(secret)
    if secret.lstrip("(（ ")[:1] in ("+", "＋"):
        return _calling_code(digits) or digits[:1]
    if digits.startswith("00"):
        return "00" + _calling_code(digits[2:])
    if len(digits) == 13 and digits.startswith("86"):
        return "86"
    if len(digits) == 11 and digits[0] == "8" and digits[1] in "3489":
        return "8"
    is_north_american = len(digits) == 11 and digits[0] == "1" and digits[1] in "23456789"
    return "1" if is_north_american and not _is_cn_mobile(secret, digits) else ""


def _calling_code(digits: str) -> str:
    """The code of a country, or none. No code is the beginning of another."""
    return next((digits[:size] for size in (1, 2, 3) if int(digits[:size] or 0) in COUNTRY_CODE_TO_REGION_CODE), "")


def _is_cn_mobile(secret: str, digits: str) -> bool:
    """Whether 11 digits are grouped as 11 or 3-4-4; a North American number is 1-3-3-4."""
    return digits[0] == "1" and digits[1] in "3456789" and not re.match(r"1[ .\-]", secret)


def _phone(secret: str, random: _DigestRandom) -> str:
    digits = plain_digits(secret)
    lead = _phone_lead(secret)
    count = len(digits) - len(lead)
    fake = (("000555" if not lead and digits[0] == "0" else "555") + random.digits(count))[:count]
    return _with_digits(secret, lead + fake)


def _number(secret: str, random: _DigestRandom) -> str:
    """Starts with zeros, unlike real numbers."""
    count = len(plain_digits(secret))
    zeros = min(count, max(2, min(4, count - 2)))
    return _with_digits(secret, "0" * zeros + random.digits(count - zeros))


def _cn_id(secret: str, random: _DigestRandom) -> str:
    return _with_digits(secret[:17], "99" + random.digits(4) + "19000101" + random.digits(3)) + (
        secret[17] if secret[17] in "Xx" else random.digits(1)
    )


def _card(secret: str, random: _DigestRandom) -> str:
    count = len(plain_digits(secret))
    digits = plain_digits(secret)[0] + "000" + random.digits(count - 5)
    last = int(random.digits(1))
    wrong = last if not luhn.is_valid(f"{digits}{last}") else (last + 1) % 10
    return _with_digits(secret, f"{digits}{wrong}")


def _iban(secret: str, random: _DigestRandom) -> str:
    return secret[:2] + "00" + "".join(map(random.like, secret[4:]))  # no account has the check digits 00


def _ipv4(_secret: str, random: _DigestRandom) -> str:
    return _TEST_NETS[int(random.digits(2)) % 3] + str(1 + int(random.digits(6)) % 254)


def _ipv6(_secret: str, random: _DigestRandom) -> str:
    groups = ["".join(random.choice("123456789abcdef") for _ in range(4)) for _ in range(3)]
    return f"2001:db8:{groups[0]}:{groups[1]}::{groups[2]}"


def _word(secret: str, random: _DigestRandom) -> str:
    """Letters for letters and digits for digits, beginning with `fake`."""
    letters = "".join(filter(str.isalnum, secret))
    if letters.isdecimal():
        return _number(secret, random)
    if _HEX.fullmatch(secret):
        return "00000000" + "".join(random.choice("0123456789abcdef") for _ in secret[8:])
    if len(letters) < 4:
        return "fake" + "".join(random.choice(_LOWER_CASE) for _ in secret[4:])
    mark = iter("FAKE" if letters[0].isupper() else "fake")
    return "".join(next(mark, None) or random.like(letter) if letter.isalnum() else letter for letter in secret)


def _token(secret: str, random: _DigestRandom) -> str:
    prefix = TOKEN_PREFIX.match(secret)
    length = prefix.end() if prefix else 0
    return secret[:length] + _word(secret[length:], random)


def _street(secret: str, random: _DigestRandom) -> str:
    suffix = re.search(r"[A-Za-z]+$", re.split(r",| (?=[Aa]p|[Ss]uite|[Uu]nit|[Ff]l|Ste|#)", secret)[0].rstrip(" ."))
    street = suffix[0] if suffix else "Street"
    return f"{1 + int(random.digits(2))} Example {street}"


def _de_street(secret: str, random: _DigestRandom) -> str:
    """`Musterweg 12`: the type of street stays, and a postal code becomes an unused one."""
    kind = re.search(r"(?i:straße|strasse|str\.?|gasse|allee|chaussee|damm|ufer|weg|platz|ring)(?= ?[0-9])", secret)
    end = kind[0].lower() if kind else "straße"
    name = "Muster" if secret[0].isupper() else "muster"
    code = ", 00000" if re.search("[0-9]{5}$", secret) else ""
    return f"{name}{end} {1 + int(random.digits(2))}{code}"


def _cn_street(secret: str, random: _DigestRandom) -> str:
    """`示例路12号`: the type of street stays, numbers change."""
    kind = re.search(_STREET_TYPES, secret)
    rest = secret[kind.end() :] if kind else secret
    changed = (
        random.like(letter) if letter.isdecimal() and letter.isascii() else _cn_numeral(letter, random)
        for letter in rest
    )
    return f"示例{kind[0] if kind else '路'}" + "".join(changed)


def _cn_numeral(letter: str, random: _DigestRandom) -> str:
    return random.choice(_NUMERALS) if letter in _NUMERALS else letter


def _block(secret: str, random: _DigestRandom) -> str:
    mark = iter("FAKE")
    return "".join(next(mark, None) or random.like(letter) if letter.isalnum() else letter for letter in secret)


def _name(secret: str, random: _DigestRandom) -> str:
    """Random syllables, like a contact's pseudonym; in Chinese, characters common in given names."""
    if not secret.isascii() and secret.upper() == secret.lower():
        return "".join(random.choice(_GIVEN_NAME_CHARACTERS) for _ in secret)
    syllables = "".join(random.choice("bdfghjklmnprstvz") + random.choice("aeiou") for _ in range(3))
    return syllables.upper() if secret.isupper() else syllables.capitalize() if secret[0].isupper() else syllables


_MAKERS: dict[SecretForm, Callable[[str, _DigestRandom], str]] = {
    "email": _email,
    "phone": _phone,
    "cn_id": _cn_id,
    "number": _number,
    "card": _card,
    "iban": _iban,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "token": _token,
    "word": _word,
    "block": _block,
    "street": _street,
    "cn_street": _cn_street,
    "de_street": _de_street,
    "name": _name,
}
