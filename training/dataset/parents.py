"""The posts that the owner answered or quoted, fetched from X for `doppel build --fetch-parents`, and for nothing else.

Asks with the owner's own token for what no archive holds, a hundred posts at a time, and keeps every answer beside the
data set at once, so that a run that was cut off goes on where it was and nothing is ever paid for twice. How X is asked
is `training.dataset.x_api`'s to know, what becomes of a parent `training.archives.parents`' and the spool's.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from doppel.config import Config
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.system.write_errors import translate_write_errors
from training.archives.discovery import Reader, Source, discover, installed_readers
from training.archives.message import Message
from training.archives.parents import TWITTER, ParentsReader
from training.archives.source_tree import SourceTree, open_folder
from training.cleaning.rules import clean_text, drop_reason
from training.dataset.x_api import TOKEN
from training.people.contacts import People
from training.people.other_owners import Whose
from training.people.owner import Owner
from training.privacy.blocklist import Forgotten
from training.privacy.scrub import Exclusion


class Fetched(msgspec.Struct, frozen=True):
    """How many posts were asked for, how many came, and how many are deleted or protected."""

    asked: int
    found: int
    gone: int


def fetched_path(config: Config) -> Path:
    """data/<persona>.parents.jsonl, beside the data set, which every build replaces."""
    return config.data_dir.with_name(f"{config.data_dir.name}.parents.jsonl")


def fetched_source(config: Config) -> Iterator[Source]:
    """What was fetched so far, as an archive; nothing where there is none."""
    path = fetched_path(config)
    if path.is_file() and path.stat().st_size:
        yield Source(ParentsReader(), SourceTree(open_folder(path), path.name, str(path), config.zone))


def fetch_parents(
    config: Config,
    told: Callable[[str], None],
    *,
    base: str | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    readers: Sequence[Reader] | None = None,
) -> Fetched:
    """Fetches the missing parents of the owner's tweets, the newest first.

    Args:
        config: says which archives; the token is in the environment and nowhere else.
        told: gets a line on how far it is.
        base: where X's API is; None for X itself.
        clock: seconds since 1970.
        sleep: waits for so many seconds.
        readers: who can read archives; None for every installed one.

    Raises:
        UserError: there is no token, or X does not take it.
        DoppelError: X cannot be reached, gives no more, or the file cannot be written. What came before is kept.
    """
    from training.dataset.x_api import API, BATCH, Api  # a client for the network, which no other build needs

    token = _token()
    missing, own = _survey(config, installed_readers() if readers is None else readers)
    path, forgotten = fetched_path(config), Forgotten(config.data_dir)
    found = gone = 0
    with closing(Api(base or API, token, told, clock, sleep)) as api:
        for start in range(0, len(missing), BATCH):
            told(tr("Asking X: {done} of {count} posts", done=f"{start:,}", count=f"{len(missing):,}"))
            page = api.page(missing[start : start + BATCH], own)
            _append(path, [_unless_forgotten(line, forgotten) for line in page.lines])
            found, gone = found + page.found, gone + len(page.lines) - page.found
    return Fetched(asked=len(missing), found=found, gone=gone)


def forget_fetched(config: Config, forgotten: Forgotten) -> None:
    """Takes what forgotten accounts wrote out of what was fetched. Raises DoppelError.

    That a post was asked for stays written, so that no later build asks for it again.
    """
    path = fetched_path(config)
    if not path.is_file():
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with translate_write_errors(path):
        try:
            with path.open("rb") as old, part.open("wb") as new:
                for line in old:
                    new.write(_line_unless_forgotten(line, forgotten))
                new.flush()
                os.fsync(new.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _line_unless_forgotten(line: bytes, forgotten: Forgotten) -> bytes:
    """A line as it is, unless an account to forget wrote it."""
    try:
        record = json.loads(line)
    except ValueError:
        return line  # cut off by a power cut; the next build tells of it
    kept = _unless_forgotten(record, forgotten) if isinstance(record, dict) else record
    return line if kept is record else _encoded(kept)


def _unless_forgotten(record: dict[str, Any], forgotten: Forgotten) -> dict[str, Any]:
    platform, author = str(record.get("platform") or TWITTER), record.get("author")
    if author is None or not forgotten.covers(platform, str(author)):
        return record
    return {"id": record.get("id"), "platform": platform, "gone": "forgotten"}


def _encoded(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def missing_parents(config: Config, readers: Sequence[Reader] | None = None) -> list[str]:
    """Ids of the tweets that the owner's answer or quote and that are nowhere, the newest first. Raises UserError."""
    return _survey(config, installed_readers() if readers is None else readers)[0]


def _survey(config: Config, readers: Sequence[Reader]) -> tuple[list[str], set[str]]:
    """What is missing, and the owner's accounts."""
    found = discover(config.archives, config.root, config.zone, readers)
    exclusion = Exclusion(config.exclude, config.zone)
    owner = Owner(config.persona.me)
    people = People(config.people)
    whose = Whose(people)
    present: set[int] = set()
    wanted: dict[tuple[str, bool | None], set[int]] = {}
    with closing(found):
        for number, source in enumerate([*found.sources, *fetched_source(config)]):
            for written in source.reader.read(source.tree.for_survey()):
                people.saw(written)
                message = whose(number, written)
                owner.saw(number, message)
                if message.platform != TWITTER or message.kind not in ("post", "reply", "quote"):
                    continue
                if message.id.isdecimal():
                    present.add(int(message.id))
                if _is_answer(message, exclusion):
                    wanted.setdefault((message.sender, message.is_owner), set()).add(int(message.reply_to or 0))
        owner.settle([*(source.tree.label for source in found.sources), str(fetched_path(config))])
    mine = [ids for (account, verdict), ids in wanted.items() if owner.is_mine(TWITTER, account, verdict)]
    # One id that cannot be is enough for X to refuse the other ninety-nine.
    missing = [str(one) for one in sorted(set().union(*mine) - present, reverse=True) if 0 < one < 1 << 63]
    return missing, {account for platform, account in owner.accounts if platform == TWITTER}


def _is_answer(message: Message, exclusion: Exclusion) -> bool:
    """Whether it answers or quotes a tweet and is going to be learned from."""
    if message.is_owner is False or not (message.reply_to or "").isdecimal():
        return False
    return drop_reason(message, clean_text(message.text)) is None and not exclusion.covers(message)


def _token() -> str:
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UserError(
            tr(
                "--fetch-parents: set {variable} to your own bearer token of the X API "
                "(developer.x.com, your app, keys and tokens)",
                variable=TOKEN,
            )
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(tr("{variable}: not a bearer token; copy it whole, without blanks", variable=TOKEN))
    return token


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    """Adds lines so that they survive a power cut; what one left half-written goes first."""
    if not lines:
        return
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.truncate(_whole_lines(path))
            file.write(b"".join(map(_encoded, lines)))
            file.flush()
            os.fsync(file.fileno())


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last line that is whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end = size
        while end > 0:
            begin = max(0, end - 65536)
            file.seek(begin)
            at = file.read(end - begin).rfind(b"\n")
            if at >= 0:
                return begin + at + 1
            end = begin
    return 0
