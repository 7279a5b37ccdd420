"""Slots of schedules: the times at which a post is due. Each is claimed once, also across restarts."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, insert, select

from bot.store.schema import SlotState, cursors, slots


def claim(
    connection: Connection,
    persona: str,
    schedule: str,
    due: datetime,
    state: SlotState,
    *,
    now: datetime,
    reason: str | None = None,
) -> int | None:
    """Claims the slot and returns its row id; None if it was claimed before, by this daemon or another one."""
    if connection.execute(select(slots.c.id).where(*_of(persona, schedule), slots.c.due == due)).first() is not None:
        return None
    values = {"persona": persona, "schedule": schedule, "due": due, "claimed_at": now, "state": state, "reason": reason}
    slot_id: int = connection.execute(insert(slots).values(values).returning(slots.c.id)).scalar_one()
    return slot_id


def unclaimed(connection: Connection, persona: str, schedule: str, dues: Sequence[datetime]) -> list[datetime]:
    """The slots that are not claimed yet, oldest first."""
    if not dues:
        return []
    query = select(slots.c.due).where(*_of(persona, schedule), slots.c.due >= min(dues))
    claimed = set(connection.execute(query).scalars())
    return sorted(due for due in dues if due not in claimed)


def skip(connection: Connection, persona: str, schedule: str, dues: Sequence[datetime], now: datetime) -> None:
    """Claims slots that were missed."""
    for due in dues:
        claim(connection, persona, schedule, due, SlotState.SKIPPED, now=now)


def last_claimed(connection: Connection, persona: str, schedule: str) -> datetime | None:
    """The latest slot that was claimed."""
    query = select(func.max(slots.c.due)).where(*_of(persona, schedule))
    last: datetime | None = connection.execute(query).scalar_one()
    return last


def trigger_since(connection: Connection, persona: str, schedule: str, trigger: str, now: datetime) -> datetime:
    """When the schedule got its current trigger; now, if the schedule is new or its trigger has changed.

    Slots before that time were not missed, because they were not scheduled.
    """
    name = f"schedule:{schedule}"
    mine = (cursors.c.persona == persona, cursors.c.name == name)
    row = connection.execute(select(cursors).where(*mine)).one_or_none()
    if row is not None and row.value == trigger:
        since: datetime = row.changed_at
        return since
    if row is not None:
        connection.execute(cursors.update().where(*mine).values(value=trigger, changed_at=now))
    else:
        connection.execute(insert(cursors).values(persona=persona, name=name, value=trigger, changed_at=now))
    return now


def _of(persona: str, schedule: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return slots.c.persona == persona, slots.c.schedule == schedule
