"""Which reactions are words of the owner's: those that are their whole answer to what somebody else said."""

from collections.abc import Sequence

from training.dataset.sessions import Line


def without_needless(session: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """The session with the owner's reactions that answer something, and the other reactions.

    A reaction stays where what it is put to is somebody else's and is there, right before it, and where no words of
    the owner's follow at once: beside those it says little, and it may have come after them.
    """
    kept: list[Line] = []
    needless: list[Line] = []
    for number, line in enumerate(session):
        if line.message.mark != "reaction":
            kept.append(line)
            continue
        before = kept[-1] if kept else None
        is_answer = before is not None and not before.is_mine and before.message.id == line.message.reply_to
        after = next((one for one in session[number + 1 :] if one.message.mark != "reaction"), None)
        is_all = after is None or not after.is_mine
        (kept if line.is_mine and is_answer and is_all else needless).append(line)
    return kept, needless
