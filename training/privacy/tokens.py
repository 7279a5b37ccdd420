"""Finds keys and tokens of programs: by the forms of services, by what announces them, or by their disorder.

A test compares the forms with what `detect-secrets` knows; importing that library takes half a second.
"""

import re
from collections.abc import Iterator

from training.privacy.secret_span import SecretSpan

TOKEN_PREFIX = re.compile(
    r"sk-(?:ant-|proj-|or-)?|(?:sk|pk|rk)_(?:live|test)_|gh[pousr]_|github_pat_|glpat-|(?:AKIA|ASIA)|xox[a-z]-|xapp-|AIza"
    r"|ya29\.|hf_|npm_|pypi-|SG\.|gsk_|r8_|shp(?:at|ss|ca)_|dop_v1_|eyJ|whsec_|tvly-|nvapi-|pplx-"
    r"|gl(?:dt|ft|soat|rt|cbt|imt|ptt|agent)-|gloas-|GR1348941|A3T|ABIA|ACCA|AKC|sq0[a-z]{3}-|AC(?=[a-z0-9])"
    r"|SK(?=[a-z0-9])|wxid_"
)
"""Prefixes of the tokens of well-known services."""

_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-[\w-]{16,}|(?:sk|pk|rk)_(?:live|test)_\w{10,}|gh[pousr]_\w{20,}|github_pat_\w{20,}"
    r"|(?:glpat-|gl(?:dt|ft|soat|rt|cbt|imt|ptt|agent)-|gloas-|GR1348941)[\w-]{16,}"
    r"|(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|sq0[a-z]{3}-[\w\\-]{20,}"
    r"|(?:AC|SK)[a-z0-9]{32}(?![A-Za-z0-9])"
    r"|(?:AKC|AP[0-9A-F])(?=[A-Za-z0-9]*[0-9])[A-Za-z0-9]{16,}|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}|AIza[\w-]{30,}"
    r"|ya29\.[\w.-]{20,}|hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{20,}|pypi-[\w-]{20,}|SG\.[\w-]{10,}\.[\w-]{10,}"
    r"|gsk_\w{20,}|r8_\w{20,}|shp(?:at|ss|ca)_\w{20,}|dop_v1_\w{20,}|whsec_[\w+/=]{20,}|tvly-[\w-]{16,}"
    r"|nvapi-[\w-]{20,}|pplx-\w{20,}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)",
    re.ASCII,
)
_MAILCHIMP = re.compile(r"(?<![0-9A-Za-z])[0-9a-z]{32}-us[0-9]{1,2}(?![0-9A-Za-z])")
_BOT = re.compile(
    r"(?<![A-Za-z0-9])[0-9]{8,10}:([\w-]{33,37})(?![\w-])"  # Telegram
    r"|(?<![\w.-])[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{27,45}(?![\w-])",  # Discord
    re.ASCII,
)
_BLOCK = re.compile(
    r"(?:----[- ]BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?[- ]----|PuTTY-User-Key-File-[0-9]:)(.*?)(?:----[- ]END|\Z)",
    re.DOTALL,
)
_SERVICE_KEY = re.compile(
    r"(?<![A-Za-z])(?:cloudant|clou|cl|softlayer|sl|ibm|cos|iam|cloud)(?:[_-]?[a-z]+)*[\"'\]]*"
    r"(?: *(?::=|=>|::|[:=]) *| +)"
    r"[\"']?([a-f0-9]{64}|[a-z]{24}|[a-z0-9]{64}|[a-f0-9]{48}|[\w-]{44})(?![\w-])"
    r"|:_authToken=\s*([A-Fa-f0-9-]{36})",
    re.ASCII,
)
_ASSIGNED = re.compile(
    r"(?:(?<![A-Za-z])(?:api|access|auth|bearer|refresh|bot|session|client|secret|private|app|license|recovery"
    r"|account|shared|storage|signing|encryption|master|deploy|webhook)?[_ -]?"
    r"(?:token|secret|key)s?|令牌|密钥|秘钥)[\"']?\s*(?::|=|is\b|->|是|为)\s*[\"'`]?(?:Bearer )?([\w\-./+=]{8,256})"
    r"|(?<![A-Za-z])Bearer\s+([\w\-./+=]{16,1024})",
    re.ASCII | re.IGNORECASE,
)
LONG_NAMED = 24
_SCRAMBLED = re.compile(
    r"(?:token|secret|key|密钥|秘钥|私钥|金鑰|令牌)[\"']?\s*(?:(?::|=|is\b|->|是|为|：)\s*)?[\"'`]?([A-Za-z_-]{20,256})(?![A-Za-z_-])",
    re.ASCII | re.IGNORECASE,
)
_RUN = re.compile(r"[\w+-]{24,}", re.ASCII)
_KEY = re.compile(r"(?<![A-Za-z0-9/+.:_=~-])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=_-])")
"""Secret keys of AWS, which may contain slashes; file paths have fewer capitals."""
_PIECES = re.compile(r"[A-Z]+|[a-z]+|[0-9]+")


def find_tokens(text: str) -> Iterator[SecretSpan]:
    """Keys with the prefix of a service, in a block, or after a word that announces them."""
    if len(text) < 12:
        return
    for match in _BLOCK.finditer(text):
        yield SecretSpan(match.start(1), match.end(1), "token", "block")
    for match in _PREFIXED.finditer(text):
        yield SecretSpan(match.start(), match.end(), "token", "token")
    for match in _MAILCHIMP.finditer(text) if "-us" in text else ():
        yield SecretSpan(match.start(), match.end(), "token", "word")
    for match in _SERVICE_KEY.finditer(text) if len(text) >= LONG_NAMED else ():
        group = 1 if match[1] else 2
        yield SecretSpan(match.start(group), match.end(group), "token", "word")
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


def find_scrambled(text: str) -> Iterator[SecretSpan]:
    """Letters after a word for a key, with as many capitals as in random text; identifiers in programs have fewer."""
    if len(text) < LONG_NAMED:
        return
    for match in _SCRAMBLED.finditer(text):
        letters = [character for character in match[1] if character.isalpha()]
        capitals = sum(map(str.isupper, letters))
        share = min(capitals, len(letters) - capitals) / max(1, len(letters))
        in_row = sum(len(piece) - 1 for piece in _PIECES.findall(match[1]) if piece.isupper())
        if share >= 0.4 or (share >= 0.25 and in_row >= 2):
            yield SecretSpan(match.start(1), match.end(1), "token", "word")


def find_random(text: str) -> Iterator[SecretSpan]:
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
