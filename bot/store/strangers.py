"""Who has been sent `stranger_reply`: their account and when, nothing of what they wrote. Kept so that it is sent once.

Each persona has its own; forgetting a person counts those of all. Every function here runs in its caller's
transaction.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from bot.store.schema import cursors
from doppel.personal_data import Account, Record

_PREFIX = "stranger:"
_MAX_NAME = 255
"""Length of the column."""


def is_remembered(connection: Connection, persona: str, account: Account) -> bool:
    """Whether somebody was remembered before; True also for an id that is too long to be stored."""
    name = _name(account)
    found = select(cursors.c.name).where(cursors.c.persona == persona, cursors.c.name == name)
    return len(name) > _MAX_NAME or connection.execute(found).first() is not None


def remember(connection: Connection, persona: str, account: Account, now: datetime) -> None:
    """Remembers somebody who is not yet."""
    connection.execute(insert(cursors).values(persona=persona, name=_name(account), value="", changed_at=now))


def stored_strangers(connection: Connection) -> list[Account]:
    """Everybody who is remembered."""
    names = connection.execute(select(cursors.c.name).where(cursors.c.name.startswith(_PREFIX, autoescape=True)))
    split = (name.removeprefix(_PREFIX).partition(":") for name in names.scalars())
    return sorted({Account(platform, account) for platform, _, account in split})


def export_strangers(connection: Connection, accounts: Collection[Account]) -> list[Record]:
    """What is remembered of a person."""
    query = select(cursors.c.name, cursors.c.changed_at).where(cursors.c.name.in_([*map(_name, accounts)]))
    times = {row.name: row.changed_at.isoformat(timespec="seconds") for row in connection.execute(query)}
    return [
        {"platform": account.platform, "chat": account.id, "kind": "stranger_reply", "by": "persona", "at": times[name]}
        for account in sorted(accounts)
        if (name := _name(account)) in times
    ]


def erase_strangers(connection: Connection, accounts: Collection[Account]) -> int:
    """Forgets that a person was sent something; returns the number of rows."""
    return connection.execute(delete(cursors).where(cursors.c.name.in_([*map(_name, accounts)]))).rowcount


def _name(account: Account) -> str:
    return f"{_PREFIX}{account.platform}:{account.id}"
