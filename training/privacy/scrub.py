"""Replaces secrets and personal data in messages with made-up values of the same kind and shape.

The same secret always gets the same stand-in, so messages stay natural. `training.privacy.secrets` finds the secrets.
"""

import hmac
import os
import secrets as randomness
from collections import Counter
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo

import msgspec

from doppel.config import PrivateKind
from training.privacy.known_stand_ins import STAND_INS_FILE, KnownStandIns
from training.privacy.names import NameFinder
from training.privacy.regions import Regions
from training.privacy.secret_span import SecretForm, SecretKind, SecretSpan
from training.privacy.secrets import find_secrets
from training.privacy.stand_ins import is_reserved, plain_digits, stand_in

KEY_FILE = "scrub.key"
SCRUBBED_FILE = "scrubbed.jsonl"


class _LogEntry(msgspec.Struct, frozen=True):
    """One replaced secret, as a line of scrubbed.jsonl."""

    origin: str
    kind: SecretKind
    digest: str


class Scrubber:
    """Replaces secrets, and logs where in scrubbed.jsonl, without the secrets themselves.

    Args:
        folder: data folder being built; the log, the key and the list of stand-ins are created there with the first
            secret.
        old_folder: previous data folder; its key is reused so that stand-ins stay the same and are known.
        kinds: what to replace.
        names: finds names of people; None leaves names alone.
        zone: the owner's time zone, for phone numbers of the country.
    """

    def __init__(
        self,
        folder: Path,
        old_folder: Path,
        kinds: tuple[PrivateKind, ...],
        names: NameFinder | None = None,
        zone: ZoneInfo | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Replaced secrets by kind."""
        self.names = names
        self._folder = folder
        self._old_folder = old_folder
        self._kinds = frozenset(kinds)
        self._regions = Regions(zone)
        self._key = _read_key(old_folder / KEY_FILE)
        self._stand_ins: KnownStandIns | None = None
        self._log_file: BinaryIO | None = None
        self._encode = msgspec.json.Encoder().encode
        if self._key is not None:
            _write_key(folder / KEY_FILE, self._key)

    def scrub(self, text: str, origin: str) -> str:
        """The text with its secrets replaced; `origin` names its file and position for the log."""
        return self.replace_secrets(text, find_secrets(text, self._kinds, self._regions), origin)

    def replace_secrets(self, text: str, secrets: list[SecretSpan], origin: str) -> str:
        """The text with these secrets, and the names in it, replaced.

        Args:
            text: cleaned text of a message.
            secrets: what `find_secrets` found in it.
            origin: its file and position, for the log.
        """
        if self.names is not None:
            secrets = self.names.add_names(text, secrets)
        if not secrets:
            return text
        parts: list[str] = []
        end = 0
        for span in secrets:
            secret = text[span.start : span.end]
            if is_reserved(secret, span.form) or self._known().covers(text, span.start, span.end):
                continue
            digest = self._digest(secret, span.form)
            parts += (text[end : span.start], self._stand_in(secret, span.form, digest))
            end = span.end
            self._log(span.kind, digest, origin)
        return "".join((*parts, text[end:]))

    def close(self) -> None:
        """Closes the log."""
        if self._log_file is not None:
            self._log_file.close()
        if self._stand_ins is not None:
            self._stand_ins.close()

    def _known(self) -> KnownStandIns:
        if self._stand_ins is None:
            old_file = self._old_folder / STAND_INS_FILE
            if self._key is None:  # without the key, what is known of old stand-ins means nothing
                self._key = randomness.token_bytes(32)
                _write_key(self._folder / KEY_FILE, self._key)
            self._stand_ins = KnownStandIns(self._key, old_file, self._folder / STAND_INS_FILE)
        return self._stand_ins

    def _stand_in(self, secret: str, form: SecretForm, digest: bytes) -> str:
        made = stand_in(secret, form, digest)
        if made == secret:  # by chance, if there are few values
            made = stand_in(secret, form, hmac.digest(digest, b"again", "sha256"))
        if form != "name":  # a made-up name may be a real one
            self._known().add(made)
        return made

    def _digest(self, secret: str, form: SecretForm) -> bytes:
        self._known()
        assert self._key is not None
        return hmac.digest(self._key, f"{form}\0{_normalized(secret, form)}".encode(), "sha256")

    def _log(self, kind: SecretKind, digest: bytes, origin: str) -> None:
        self.counts[kind] += 1
        if self._log_file is None:
            self._log_file = (self._folder / SCRUBBED_FILE).open("wb")
        redacted = origin
        secrets = find_secrets(origin, self._kinds, self._regions)  # the file may be named after a phone number
        for span in reversed(secrets):
            redacted = f"{redacted[: span.start]}…{redacted[span.end :]}"
        self._log_file.write(self._encode(_LogEntry(redacted, kind, digest.hex())) + b"\n")


def _read_key(path: Path) -> bytes | None:
    try:
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == 32 else None


def _write_key(path: Path, key: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key)


def _normalized(secret: str, form: SecretForm) -> str:
    """The same text for all ways to write the same secret."""
    if form in ("phone", "card", "number"):
        return plain_digits(secret)
    if form in ("email", "iban", "ipv6", "cn_id", "name"):
        return "".join(secret.split()).casefold()
    return secret
