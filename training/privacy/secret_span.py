"""What a finder of secrets returns: where a secret is, of what kind it is, and how it is written."""

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
