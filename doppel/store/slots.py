"""Slots of schedules: each moment a post is due is claimed once, also across restarts. Knows no cron."""

from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, insert, select

from doppel.store.schema import cursors, slots

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


def known_since(connection: Connection, schedule: str, rhythm: str, now: datetime) -> datetime:
    """Since when the schedule has had this rhythm; now, when it is new or has changed.

    A slot before that moment was never missed: nobody had asked for it.
    """
    name, value = f"schedule:{schedule}", rhythm
    row = connection.execute(select(cursors).where(cursors.c.name == name)).one_or_none()
    if row is not None and row.value == value:
        since: datetime = row.changed_at
        return since
    if row is not None:
        connection.execute(cursors.update().where(cursors.c.name == name).values(value=value, changed_at=now))
    else:
        connection.execute(insert(cursors).values(name=name, value=value, changed_at=now))
    return now
