"""Slots of schedules: the times at which a post is due. Each is claimed once, also across restarts."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, func, insert, select

from bot.store.schema import SlotState, cursors, slots


def is_claimed(connection: Connection, schedule: str, due: datetime) -> bool:
    """Whether the slot has been handled."""
    query = select(slots.c.id).where(slots.c.schedule == schedule, slots.c.due == due)
    return connection.execute(query).first() is not None


def claim(
    connection: Connection, schedule: str, due: datetime, state: SlotState, *, now: datetime, reason: str | None = None
) -> int | None:
    """Claims the slot and returns its row id; None if it was claimed before."""
    if is_claimed(connection, schedule, due):
        return None
    values = {"schedule": schedule, "due": due, "claimed_at": now, "state": state, "reason": reason}
    slot_id: int = connection.execute(insert(slots).values(values).returning(slots.c.id)).scalar_one()
    return slot_id


def unclaimed(connection: Connection, schedule: str, dues: Sequence[datetime]) -> list[datetime]:
    """The slots that are not claimed yet, oldest first."""
    if not dues:
        return []
    query = select(slots.c.due).where(slots.c.schedule == schedule, slots.c.due >= min(dues))
    claimed = set(connection.execute(query).scalars())
    return sorted(due for due in dues if due not in claimed)


def skip(connection: Connection, schedule: str, dues: Sequence[datetime], now: datetime) -> None:
    """Claims slots that were missed."""
    for due in dues:
        claim(connection, schedule, due, SlotState.SKIPPED, now=now)


def last_claimed(connection: Connection, schedule: str) -> datetime | None:
    """The latest slot that was claimed."""
    query = select(func.max(slots.c.due)).where(slots.c.schedule == schedule)
    last: datetime | None = connection.execute(query).scalar_one()
    return last


def trigger_since(connection: Connection, schedule: str, trigger: str, now: datetime) -> datetime:
    """When the schedule got its current trigger; now, if the schedule is new or its trigger has changed.

    Slots before that time were not missed, because they were not scheduled.
    """
    name = f"schedule:{schedule}"
    row = connection.execute(select(cursors).where(cursors.c.name == name)).one_or_none()
    if row is not None and row.value == trigger:
        since: datetime = row.changed_at
        return since
    if row is not None:
        connection.execute(cursors.update().where(cursors.c.name == name).values(value=trigger, changed_at=now))
    else:
        connection.execute(insert(cursors).values(name=name, value=trigger, changed_at=now))
    return now
