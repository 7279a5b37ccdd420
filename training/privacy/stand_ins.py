"""Made-up values in place of secrets: of the same kind and shape, the same one every time, and nobody's.

Which text is a secret, and of what form, is decided elsewhere; a digest of the secret decides on the stand-in.
"""

import re
from collections.abc import Callable
from hashlib import shake_256

from training.privacy.personal_data import Form, is_luhn
from training.privacy.secrets import PREFIX

_DIGITS, _SMALL, _CAPITALS = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HEX = re.compile(r"[0-9a-f]{32,}")
_MAIL_HOSTS = ("example.com", "example.org", "example.net")
_TEST_NETS = ("192.0.2.", "198.51.100.", "203.0.113.")
_CALLING_CODE = re.compile(
    r"[17]|2(?:[07]|\d\d)|3(?:[0-469]|\d\d)|4(?:[013-9]|\d\d)|5(?:[1-8]|\d\d)|6(?:[0-6]|\d\d)|8(?:[1246]|\d\d)|9(?:[0-58]|\d\d)"
)
_NUMERALS = "一二三四五六七八九"
_SORTS = f"小区|花园|公寓|家园|新村|苑|大厦|广场|嘉园|名邸|大道|胡同|里弄|路|街|巷|[{_NUMERALS}十]区"
_GIVEN = "明华强丽芳军伟静敏杰"


class _Dice:
    """Choices that follow from a digest."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self._bytes = b""
        self._used = 0

    def one_of(self, choices: str) -> str:
        """One of the characters."""
        if self._used == len(self._bytes):
            self._bytes = shake_256(self._digest).digest(max(64, 2 * len(self._bytes)))
        self._used += 1
        return choices[self._bytes[self._used - 1] % len(choices)]

    def digits(self, count: int) -> str:
        """So many digits."""
        return "".join(self.one_of(_DIGITS) for _ in range(count))

    def like(self, letter: str) -> str:
        """A character of the same sort; signs stay as they are."""
        if letter.isdecimal():
            return self.one_of(_DIGITS)
        if letter.isupper():
            return self.one_of(_CAPITALS)
        return self.one_of(_SMALL) if letter.isalpha() else letter


def stand_in(secret: str, form: Form, digest: bytes) -> str:
    """A made-up value of the secret's form that nobody can have, always the same for one digest."""
    return _MAKERS[form](secret, _Dice(digest))


def is_stand_in(text: str, form: Form) -> bool:
    """Whether the text is one that `stand_in` makes, or reserved for documentation anyway."""
    return _TESTS[form](text)


def _with_digits(secret: str, digits: str) -> str:
    """The secret's layout with other digits."""
    rest = iter(digits)
    return "".join(next(rest) if letter.isdecimal() else letter for letter in secret)


def plain_digits(text: str) -> str:
    """The digits of a text, of whatever script."""
    return "".join(str(int(letter)) for letter in text if letter.isdecimal())


def _email(secret: str, dice: _Dice) -> str:
    length = min(12, max(6, secret.index("@") if "@" in secret else 8))
    return "".join(dice.one_of(_SMALL) for _ in range(length)) + "@" + _MAIL_HOSTS[int(dice.digits(1)) % 3]


def _is_email(text: str) -> bool:
    return re.split("[@＠]", text.lower())[-1].endswith(_MAIL_HOSTS)


def _phone_lead(secret: str) -> str:
    """The digits that stay: + or 00 and the calling code, the 1 or 86 before a national number."""
    digits = plain_digits(secret)
    if secret.lstrip("(（")[:1] in ("+", "＋"):
        code = _CALLING_CODE.match(digits)
        return code[0] if code else digits[:1]
    if digits.startswith("00"):
        code = _CALLING_CODE.match(digits, 2)
        return "00" + (code[0] if code else "")
    if len(digits) == 13 and digits.startswith("86"):
        return "86"
    return (
        "1"
        if len(digits) == 11 and digits[0] == "1" and digits[1] in "23456789" and not _is_cn_mobile(secret, digits)
        else ""
    )


def _is_cn_mobile(secret: str, digits: str) -> bool:
    """Eleven digits as 11 or 3-4-4, where a North American number is 1-3-3-4."""
    return digits[0] == "1" and digits[1] in "3456789" and not re.match(r"1[ .\-]", secret)


def _phone(secret: str, dice: _Dice) -> str:
    digits = plain_digits(secret)
    lead = _phone_lead(secret)
    lead += "000555" if not lead and digits[0] == "0" else "555"
    return _with_digits(secret, (lead + dice.digits(len(digits)))[: len(digits)])


def _is_phone(text: str) -> bool:
    digits = plain_digits(text)
    return digits.startswith((_phone_lead(text) + "555", "000555"))


def _number(secret: str, dice: _Dice) -> str:
    """Zeros first, so that it can be told from a real one."""
    count = len(plain_digits(secret))
    zeros = min(count, max(2, min(4, count - 2)))
    return _with_digits(secret, "0" * zeros + dice.digits(count - zeros))


def _is_number(text: str) -> bool:
    digits = plain_digits(text)
    return digits.startswith("0" * min(len(digits), max(2, min(4, len(digits) - 2))))


def _cn_id(secret: str, dice: _Dice) -> str:
    return _with_digits(secret[:17], "99" + dice.digits(4) + "19000101" + dice.digits(3)) + (
        secret[17] if secret[17] in "Xx" else dice.digits(1)
    )


def _card(secret: str, dice: _Dice) -> str:
    count = len(plain_digits(secret))
    digits = plain_digits(secret)[0] + "000" + dice.digits(count - 5)
    last = int(dice.digits(1))
    wrong = last if not is_luhn(f"{digits}{last}") else (last + 1) % 10
    return _with_digits(secret, f"{digits}{wrong}")


def _is_card(text: str) -> bool:
    digits = plain_digits(text)
    return digits[1:4] == "000" and not is_luhn(digits)


def _iban(secret: str, dice: _Dice) -> str:
    return secret[:2] + "00" + "".join(map(dice.like, secret[4:]))  # no account has the check digits 00


def _ipv4(_secret: str, dice: _Dice) -> str:
    return _TEST_NETS[int(dice.digits(2)) % 3] + str(1 + int(dice.digits(6)) % 254)


def _ipv6(_secret: str, dice: _Dice) -> str:
    groups = ["".join(dice.one_of("123456789abcdef") for _ in range(4)) for _ in range(3)]
    return f"2001:db8:{groups[0]}:{groups[1]}::{groups[2]}"


def _word(secret: str, dice: _Dice) -> str:
    """Letters for letters, digits for digits, and `fake` at the beginning."""
    letters = "".join(filter(str.isalnum, secret))
    if letters.isdecimal():
        return _number(secret, dice)
    if _HEX.fullmatch(secret):
        return "00000000" + "".join(dice.one_of("0123456789abcdef") for _ in secret[8:])
    if len(letters) < 4:
        return "fake" + "".join(dice.one_of(_SMALL) for _ in secret[4:])
    mark = iter("FAKE" if letters[0].isupper() else "fake")
    return "".join(next(mark, None) or dice.like(one) if one.isalnum() else one for one in secret)


def _is_word(text: str) -> bool:
    letters = "".join(filter(str.isalnum, text))
    if letters.isdecimal():
        return _is_number(text)
    return letters[:4] in ("FAKE", "fake") or (letters.startswith("00000000") and _HEX.fullmatch(text) is not None)


def _token(secret: str, dice: _Dice) -> str:
    prefix = PREFIX.match(secret)
    length = prefix.end() if prefix else 0
    return secret[:length] + _word(secret[length:], dice)


def _is_token(text: str) -> bool:
    prefix = PREFIX.match(text)
    return _is_word(text[prefix.end() if prefix else 0 :])


def _street(secret: str, dice: _Dice) -> str:
    suffix = re.search(r"[A-Za-z]+$", re.split(r",| (?=[Aa]p|[Ss]uite|[Uu]nit|[Ff]l|Ste|#)", secret)[0].rstrip(" ."))
    street = suffix[0] if suffix else "Street"
    return f"{1 + int(dice.digits(2))} Example {street}"


def _de_street(secret: str, dice: _Dice) -> str:
    """`Musterweg 12`: the sort of street stays, and a postal code becomes one that no place has."""
    sort = re.search(r"(?i:straße|strasse|str\.?|gasse|allee|chaussee|damm|ufer|weg|platz|ring)(?= ?[0-9])", secret)
    end = sort[0].lower() if sort else "straße"
    muster = "Muster" if secret[0].isupper() else "muster"
    code = ", 00000" if re.search("[0-9]{5}$", secret) else ""
    return f"{muster}{end} {1 + int(dice.digits(2))}{code}"


def _cn_street(secret: str, dice: _Dice) -> str:
    """`示例路12号`: the sort of street stays, numbers change."""
    sort = re.search(_SORTS, secret)
    rest = secret[sort.end() :] if sort else secret
    changed = (dice.like(one) if one.isdecimal() and one.isascii() else _cn_numeral(one, dice) for one in rest)
    return f"示例{sort[0] if sort else '路'}" + "".join(changed)


def _cn_numeral(letter: str, dice: _Dice) -> str:
    return dice.one_of(_NUMERALS) if letter in _NUMERALS else letter


def _block(secret: str, dice: _Dice) -> str:
    mark = iter("FAKE")
    return "".join(next(mark, None) or dice.like(one) if one.isalnum() else one for one in secret)


def _is_block(text: str) -> bool:
    letters = "".join(filter(str.isalnum, text))
    return letters[:4] == "FAKE" or not letters


def _name(secret: str, dice: _Dice) -> str:
    """Syllables, like a contact's pseudonym; in a script without capitals characters of given names."""
    if not secret.isascii() and secret.upper() == secret.lower():
        return "".join(dice.one_of(_GIVEN) for _ in secret)
    syllables = "".join(dice.one_of("bdfghjklmnprstvz") + dice.one_of("aeiou") for _ in range(3))
    return syllables.upper() if secret.isupper() else syllables.capitalize() if secret[0].isupper() else syllables


_MAKERS: dict[Form, Callable[[str, _Dice], str]] = {
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
_TESTS: dict[Form, Callable[[str], bool]] = {
    "email": _is_email,
    "phone": _is_phone,
    "cn_id": lambda text: text.startswith("99"),
    "number": _is_number,
    "card": _is_card,
    "iban": lambda text: text[2:4] == "00",
    "ipv4": lambda text: text.startswith(_TEST_NETS),
    "ipv6": lambda text: text.lower().startswith("2001:db8:"),
    "token": _is_token,
    "word": _is_word,
    "block": _is_block,
    "street": lambda text: " Example " in text,
    "cn_street": lambda text: text.startswith("示例"),
    "de_street": lambda text: text.startswith(("Muster", "muster")),
    "name": lambda _: False,  # a made-up name may be somebody's
}
