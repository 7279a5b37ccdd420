"""Opens the engine that the configuration names. Knows entry points; knows no engine."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from doppel.config import Config
from doppel.engine import Engine
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr

GROUP = "doppel.engines"


def open_engine(config: Config, report: Callable[[str], None]) -> Engine:
    """The configured engine for the configured model. Blocks.

    Args:
        report: takes one line for the user when something slow begins.

    Raises:
        UserError: no such engine or model. DoppelError: it cannot be opened.
    """
    point = entry_point(config)
    try:
        engine: Engine = point.load().open(config, report)
    except ImportError as error:
        raise DoppelError(
            tr("engine.backend: {name} cannot be loaded: {error}", name=point.name, error=error)
        ) from None
    return engine


def entry_point(config: Config) -> EntryPoint:
    """Where the configured engine is. Raises UserError when there is none of that name."""
    name = config.engine.backend
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise UserError(
            tr("engine.backend: no engine named {name}; there are {known}", name=name, known=", ".join(sorted(found)))
        )
    return found[name]
