"""Fetches the posts that the owner replied to or quoted from X, for `doppel build --fetch-parents` only.

It uses the owner's own token and asks only for posts that no archive contains. Every response is saved next to the
data set at once, so an interrupted run continues where it stopped and no post is paid for twice.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.personal_data import Account
from doppel.secrets import X_TOKEN, read_secret
from doppel.system.atomic_file import open_atomically
from doppel.system.private_folder import make_private_folder
from doppel.system.write_errors import translate_write_errors
from training.archives.discovery import Source, discover, installed_readers
from training.archives.message import Message
from training.archives.parents import TWITTER, ParentsReader
from training.archives.reader import Reader
from training.archives.source_tree import SourceTree, open_folder
from training.cleaning.rules import clean_text, drop_reason
from training.people.contacts import LinkedAccounts
from training.people.other_owners import OtherOwners
from training.people.owner import OwnerAccounts
from training.privacy.blocklist import Blocklist
from training.privacy.exclusion import ExclusionFilter


class FetchResult(msgspec.Struct, frozen=True):
    """How many posts were requested, found, and unavailable (deleted or protected)."""

    asked: int
    found: int
    gone: int


def parents_file(data_dir: Path) -> Path:
    """data/<persona>.parents.jsonl, next to the data set, which every build replaces."""
    return data_dir.with_name(f"{data_dir.name}.parents.jsonl")


def parents_source(data_dir: Path, zone: ZoneInfo) -> Iterator[Source]:
    """The fetched posts as an archive, if there are any."""
    path = parents_file(data_dir)
    if path.is_file() and path.stat().st_size:
        yield Source(ParentsReader(), SourceTree(open_folder(path), path.name, str(path), zone))


def fetch_parents(
    config: Config,
    on_progress: Callable[[str], None],
    *,
    base_url: str | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    readers: Sequence[Reader] | None = None,
) -> FetchResult:
    """Fetches the missing parents of the owner's tweets, the newest first.

    Args:
        config: the configuration; the token comes from the environment.
        on_progress: receives status lines.
        base_url: of the API; None for X itself.
        clock: returns seconds since 1970.
        sleep: waits for a number of seconds.
        readers: the available archive readers; None for all installed ones.

    Raises:
        UserError: there is no token, or X rejects it.
        DoppelError: X cannot be reached, the quota is used up, or the file cannot be written. Posts fetched before are
            saved.
    """
    from training.dataset.x_api import API_URL, BATCH_SIZE, XApi  # imports httpx, which other builds do not need

    token = _token()
    missing, own = _survey(config, installed_readers() if readers is None else readers)
    path, blocklist = parents_file(config.data_dir), Blocklist(config.data_dir)
    found = gone = 0
    with closing(XApi(base_url or API_URL, token, on_progress, clock, sleep)) as api:
        for start in range(0, len(missing), BATCH_SIZE):
            on_progress(tr("Fetching from X: {done} of {count} posts", done=f"{start:,}", count=f"{len(missing):,}"))
            batch = api.fetch_posts(missing[start : start + BATCH_SIZE], own)
            _append(path, [_unless_forgotten(line, blocklist) for line in batch.lines])
            found, gone = found + batch.found, gone + len(batch.lines) - batch.found
    return FetchResult(asked=len(missing), found=found, gone=gone)


def forget_in_parents(data_dir: Path, blocklist: Blocklist) -> None:
    """Removes what forgotten accounts wrote from the fetched posts. Raises DoppelError.

    That a post was requested stays recorded, so that it is not requested again.
    """
    path = parents_file(data_dir)
    if not path.is_file():
        return
    with open_atomically(path) as new, path.open("rb") as old:
        for line in old:
            new.write(_line_unless_forgotten(line, blocklist))


def fetched_posts(data_dir: Path) -> list[tuple[Account, dict[str, Any]]]:
    """The fetched posts whose authors are stored, each with its author."""
    try:
        lines = parents_file(data_dir).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    posts = []
    for line in lines:
        with suppress(ValueError):  # truncated by a power cut; the next build reports it
            record = json.loads(line)
            if isinstance(record, dict) and record.get("author") is not None:
                posts.append((Account(str(record.get("platform") or TWITTER), str(record["author"])), record))
    return posts


def _line_unless_forgotten(line: bytes, blocklist: Blocklist) -> bytes:
    try:
        record = json.loads(line)
    except ValueError:
        return line  # truncated by a power cut; the next build reports it
    kept = _unless_forgotten(record, blocklist) if isinstance(record, dict) else record
    return line if kept is record else _encoded(kept)


def _unless_forgotten(record: dict[str, Any], blocklist: Blocklist) -> dict[str, Any]:
    """The record itself, or one without content if its author is on the blocklist."""
    platform, author = str(record.get("platform") or TWITTER), record.get("author")
    if author is None or not blocklist.contains(platform, str(author)):
        return record
    return {"id": record.get("id"), "platform": platform, "gone": "forgotten"}


def _encoded(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def missing_parents(config: Config, readers: Sequence[Reader] | None = None) -> list[str]:
    """Ids of the posts that the owner's tweets refer to and no archive contains, newest first. Raises UserError."""
    return _survey(config, installed_readers() if readers is None else readers)[0]


def _survey(config: Config, readers: Sequence[Reader]) -> tuple[list[str], set[str]]:
    """Reads all archives; returns the ids of the missing parents and the owner's accounts."""
    archives = discover(config.archives, config.root, config.zone, readers, me=config.persona.me, tables=config.tables)
    exclusion = ExclusionFilter(config.exclude, config.zone)
    owner = OwnerAccounts(config.persona.me)
    accounts = LinkedAccounts(config.people)
    other_owners = OtherOwners(accounts)
    present: set[int] = set()
    parents: dict[tuple[str, bool | None], set[int]] = {}  # ids referred to, by (sender, is_owner)
    with closing(archives):
        for number, source in enumerate([*archives.sources, *parents_source(config.data_dir, config.zone)]):
            for read_message in source.reader.read(source.tree.for_survey()):
                accounts.add(read_message)
                message = other_owners.corrected(number, read_message)
                owner.add(number, message)
                if message.platform != TWITTER or message.kind not in ("post", "reply", "quote"):
                    continue
                if message.id.isdecimal():
                    present.add(int(message.id))
                if _needs_parent(message, exclusion):
                    key = (message.sender, message.is_owner)
                    parents.setdefault(key, set()).add(int(message.reply_to or 0))
        labels = [*(source.tree.label for source in archives.sources), str(parents_file(config.data_dir))]
        owner.resolve(labels, other_owners.sources)
    own = [ids for (account, is_owner), ids in parents.items() if owner.is_mine(TWITTER, account, is_owner)]
    # X rejects a whole batch for one impossible id.
    missing = [str(post_id) for post_id in sorted(set().union(*own) - present, reverse=True) if 0 < post_id < 1 << 63]
    return missing, {account for platform, account in owner.accounts if platform == TWITTER}


def _needs_parent(message: Message, exclusion: ExclusionFilter) -> bool:
    """Whether the message replies to or quotes a tweet and will be in the data set."""
    if message.is_owner is False or not (message.reply_to or "").isdecimal():
        return False
    return drop_reason(message, clean_text(message.text)) is None and not exclusion.excludes(message)


def _token() -> str:
    token = read_secret(X_TOKEN, os.environ)
    if not token:
        raise UserError(
            tr(
                "--fetch-parents: set the environment variable {variable} to the bearer token of your X app "
                "(developer.x.com, your app, keys and tokens)",
                variable=X_TOKEN,
            )
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(tr("{variable}: not a valid bearer token; copy all of it, without spaces", variable=X_TOKEN))
    return token


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    """Appends lines durably; removes an incomplete line that a power cut left."""
    if not lines:
        return
    with translate_write_errors(path):
        make_private_folder(path.parent)
        with path.open("a+b") as file:
            file.truncate(_complete_size(path))
            file.write(b"".join(map(_encoded, lines)))
            file.flush()
            os.fsync(file.fileno())


def _complete_size(path: Path) -> int:
    """Size of the file up to the end of its last complete line."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end = size
        while end > 0:
            begin = max(0, end - 65536)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
    return 0
