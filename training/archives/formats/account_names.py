"""Chooses among the names of an account: its display name, unless `persona.me` has another one of them."""

from collections.abc import Iterable

from doppel.personal_data import normalized_name


class AccountNames:
    """Knows by which names the owner may be called.

    Args:
        platform: may stand before a name in `persona.me`.
        me: `persona.me`.
    """

    def __init__(self, platform: str, me: Iterable[str]) -> None:
        self._mine = {normalized_name(name).removeprefix(f"{platform}:") for name in me}
        self._chosen: dict[tuple[str, ...], str] = {}

    def choose(self, *names: str) -> str:
        """The first name that is the owner's, else the first one there is; empty if there is none."""
        if (chosen := self._chosen.get(names)) is None:
            present = [name for name in names if name]
            mine = (name for name in present if normalized_name(name) in self._mine)
            chosen = self._chosen[names] = next(mine, present[0] if present else "")
        return chosen
