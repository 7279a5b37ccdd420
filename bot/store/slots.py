"""Slots of schedules: each moment a post is due is claimed once, also across restarts. Knows no cron."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, func, insert, select

from bot.store.schema import cursors, slots

SlotState = Literal["posted", "skipped", "failed"]


def is_claimed(connection: Connection, schedule: str, due: datetime) -> bool:
    """Whether the slot has been dealt with."""
    query = select(slots.c.id).where(slots.c.schedule == schedule, slots.c.due == due)
    return connection.execute(query).first() is not None


def claim(
    connection: Connection, schedule: str, due: datetime, state: SlotState, *, now: datetime, reason: str | None = None
) -> int | None:
    """Takes the slot and returns its row; None when it was taken before."""
    if is_claimed(connection, schedule, due):
        return None
    values = {"schedule": schedule, "due": due, "claimed_at": now, "state": state, "reason": reason}
    slot_id: int = connection.execute(insert(slots).values(values).returning(slots.c.id)).scalar_one()
    return slot_id


def unclaimed(connection: Connection, schedule: str, dues: Sequence[datetime]) -> list[datetime]:
    """Those of the slots nobody has dealt with, oldest first."""
    if not dues:
        return []
    query = select(slots.c.due).where(slots.c.schedule == schedule, slots.c.due >= min(dues))
    claimed = set(connection.execute(query).scalars())
    return sorted(due for due in dues if due not in claimed)


def skip(connection: Connection, schedule: str, dues: Sequence[datetime], now: datetime) -> None:
    """Claims slots that came and went."""
    for due in dues:
        claim(connection, schedule, due, "skipped", now=now)


def last_claimed(connection: Connection, schedule: str) -> datetime | None:
    """The latest slot that was dealt with."""
    query = select(func.max(slots.c.due)).where(slots.c.schedule == schedule)
    last: datetime | None = connection.execute(query).scalar_one()
    return last


def trigger_since(connection: Connection, schedule: str, trigger: str, now: datetime) -> datetime:
    """Since when the schedule has had this rhythm; now, when it is new or has changed.

    A slot before that moment was never missed: nobody had asked for it.
    """
    name, value = f"schedule:{schedule}", trigger
    row = connection.execute(select(cursors).where(cursors.c.name == name)).one_or_none()
    if row is not None and row.value == value:
        since: datetime = row.changed_at
        return since
    if row is not None:
        connection.execute(cursors.update().where(cursors.c.name == name).values(value=value, changed_at=now))
    else:
        connection.execute(insert(cursors).values(name=name, value=value, changed_at=now))
    return now
