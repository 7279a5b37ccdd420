"""Takes up a newly published adapter while the daemon runs, between two turns; refuses a bad one and says why.

Knows adapters and the engine; knows no chat.
"""

import asyncio
import logging
from pathlib import Path

from bot.chat.responder import LoadedAdapter, Responder
from bot.clock import Clock
from doppel.adapters.versions import MANIFEST, check_base, current_version
from doppel.config import Config
from doppel.engine import Engine, unsupported
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.persona import Persona, read_persona

POLL_SECONDS = 1.0

log = logging.getLogger(__name__)


async def load_adapter(engine: Engine, persona: Persona, config: Config) -> LoadedAdapter:
    """Loads a verified persona's adapter into the engine, which tries it before it returns.

    Raises:
        AdapterRefused: it was trained on another base, cannot be loaded, or does not work.
        UserError: its sampling has settings that the engine does not support.
        EngineError: the engine is closed or failed.
    """
    check_base(persona.folder, persona.manifest, engine.base)
    if reason := unsupported(engine, persona.sampling(config.reply)):  # found before anything is loaded
        raise UserError(reason)
    name = await engine.load_adapter(persona.folder)
    return LoadedAdapter(persona, name, persona.sampling(config.reply, engine.transcript_of(name)))


class AdapterWatcher:
    """Watches which version is in use.

    Args:
        config: where adapters are published.
        engine: loads them.
        voice: what speaks with them; already awake.
        clock: time.
    """

    def __init__(self, config: Config, engine: Engine, responder: Responder, clock: Clock) -> None:
        self._config = config
        self._engine = engine
        self._responder = responder
        self._clock = clock
        self._refused: Path | None = None
        self._manifest_at: int | None = None

    async def run(self) -> None:
        """Looks once a second until cancelled."""
        while True:
            await self.poll()
            await self._clock.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Takes up the version in use if it is another than the one loaded. A refused one is logged once."""
        folder = await asyncio.to_thread(_current, self._config.adapters_dir)
        loaded = self._responder.loaded
        assert loaded is not None
        if folder == loaded.persona.folder:
            await self._poll_sampling(loaded)
            return
        if folder is None or folder == self._refused:
            return
        try:
            persona = await asyncio.to_thread(read_persona, folder)
            fresh = await load_adapter(self._engine, persona, self._config)
        except (DoppelError, OSError) as error:
            self._refused = folder
            log.warning(tr("new adapter refused, {version} stays in use: {error}", version=loaded.version, error=error))
            return
        self._refused = None
        self._responder.switch_adapter(fresh)
        log.info(tr("new adapter in use: {version}", version=fresh.version))
        if fresh.name != loaded.name:  # the same weights published twice are the same to the engine
            await self._engine.drop_adapter(loaded.name)

    async def _poll_sampling(self, loaded: LoadedAdapter) -> None:
        """Takes up how the version in use is best sampled, once that is written into its manifest."""
        changed = await asyncio.to_thread(_changed_at, loaded.persona.folder / MANIFEST)
        if changed is None or changed == self._manifest_at:
            return
        self._manifest_at = changed
        try:
            persona = await asyncio.to_thread(read_persona, loaded.persona.folder)
            sampling = persona.sampling(self._config.reply, self._engine.transcript_of(loaded.name))
        except (DoppelError, OSError):  # damaged since it was loaded, which harms nothing before the next start
            return
        if sampling != loaded.sampling and not unsupported(self._engine, sampling):
            self._responder.switch_adapter(LoadedAdapter(persona, loaded.name, sampling))
            log.info(tr("adapter {version} now speaks as it was tuned", version=loaded.version))


def _changed_at(path: Path) -> int | None:
    """When a file was written; None where there is none, as between the two renames of `doppel.adapters.update`."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _current(adapters_dir: Path) -> Path | None:
    """The version in use; None also while its file cannot be read, for the next look may succeed."""
    try:
        return current_version(adapters_dir)
    except OSError:
        return None
