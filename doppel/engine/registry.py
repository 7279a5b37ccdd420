"""Opens the configured engine, found by its entry point."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from doppel.config import Config
from doppel.engine import Engine
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr

GROUP = "doppel.engines"


def open_engine(config: Config, on_progress: Callable[[str], None]) -> Engine:
    """Opens the configured engine with the configured base model. Blocks.

    Args:
        config: the engine may read all of it.
        on_progress: called with one line for the user before each slow step.

    Raises:
        UserError: no such engine or model. DoppelError: it cannot be opened.
    """
    point = entry_point(config)
    try:
        engine: Engine = point.load().open(config, on_progress)
    except ImportError as error:
        raise DoppelError(tr("engine.backend: cannot load {name}: {error}", name=point.name, error=error)) from None
    return engine


def entry_point(config: Config) -> EntryPoint:
    """The entry point of the configured engine. Raises UserError when there is no engine of that name."""
    name = config.engine.backend
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        available = ", ".join(sorted(points))
        raise UserError(tr("engine.backend: unknown engine `{name}`; available: {names}", name=name, names=available))
    return points[name]
