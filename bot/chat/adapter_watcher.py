"""Watches for newly published adapters and loads them while the daemon runs; keeps the old one if the new one fails."""

import asyncio
import logging
from pathlib import Path

from bot.chat.responder import LoadedAdapter, Responder
from bot.clock import Clock
from doppel.adapters.versions import MANIFEST, check_base, current_version
from doppel.config import ReplySettings
from doppel.engine import Engine, unsupported
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.persona import Persona, read_persona

POLL_SECONDS = 1.0

log = logging.getLogger(__name__)


async def load_adapter(engine: Engine, persona: Persona, reply: ReplySettings) -> LoadedAdapter:
    """Loads a verified adapter into the engine, which runs a test prompt before it returns.

    Raises:
        AdapterRefused: it was trained on another base model, cannot be loaded, or does not work.
        EngineError: the engine is closed or failed.
        UserError: its sampling has settings that the engine does not support.
    """
    check_base(persona.folder, persona.manifest, engine.base)
    if reason := unsupported(engine, persona.sampling(reply)):  # checked before anything is loaded
        raise UserError(reason)
    name = await engine.load_adapter(persona.folder)
    return LoadedAdapter(persona, name, persona.sampling(reply, engine.transcript_of(name)))


class AdapterWatcher:
    """Keeps the responder on the adapter version that is in use.

    Args:
        adapters_dir: where versions are published.
        reply: sampling overrides.
        engine: loads the adapters.
        responder: switched to a new version; already started.
        clock: time.
    """

    def __init__(
        self, adapters_dir: Path, reply: ReplySettings, engine: Engine, responder: Responder, clock: Clock
    ) -> None:
        self._adapters_dir = adapters_dir
        self._reply = reply
        self._engine = engine
        self._responder = responder
        self._clock = clock
        self._refused_folder: Path | None = None
        self._manifest_mtime: int | None = None

    async def run(self) -> None:
        """Polls once a second until cancelled."""
        while True:
            await self.poll()
            await self._clock.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Loads the version in use if it is not the loaded one. A refused version is logged once."""
        folder = await asyncio.to_thread(_current_folder, self._adapters_dir)
        loaded = self._responder.adapter
        assert loaded is not None
        if folder == loaded.persona.folder:
            await self._poll_sampling(loaded)
            return
        if folder is None or folder == self._refused_folder:
            return
        try:
            persona = await asyncio.to_thread(read_persona, folder)
            adapter = await load_adapter(self._engine, persona, self._reply)
        except (DoppelError, OSError) as error:
            self._refused_folder = folder
            log.warning(tr("new adapter refused, keeping {version}: {error}", version=loaded.version, error=error))
            return
        self._refused_folder = None
        self._responder.switch_adapter(adapter)
        log.info(tr("switched to adapter {version}", version=adapter.version))
        if adapter.name != loaded.name:  # the engine gives the same weights the same name
            await self._engine.drop_adapter(loaded.name)

    async def _poll_sampling(self, loaded: LoadedAdapter) -> None:
        """Applies new sampling parameters once `doppel tune` has written them into the loaded version's manifest."""
        mtime = await asyncio.to_thread(_mtime, loaded.persona.folder / MANIFEST)
        if mtime is None or mtime == self._manifest_mtime:
            return
        self._manifest_mtime = mtime
        try:
            persona = await asyncio.to_thread(read_persona, loaded.persona.folder)
            sampling = persona.sampling(self._reply, self._engine.transcript_of(loaded.name))
        except (DoppelError, OSError):  # damaged after loading, which matters only at the next start
            return
        if sampling != loaded.sampling and not unsupported(self._engine, sampling):
            self._responder.switch_adapter(LoadedAdapter(persona, loaded.name, sampling))
            log.info(tr("adapter {version}: using its tuned sampling", version=loaded.version))


def _mtime(path: Path) -> int | None:
    """Modification time in ns; None while the file is missing, as between two renames of `doppel.adapters.update`."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _current_folder(adapters_dir: Path) -> Path | None:
    """The version in use; None also while it cannot be read, since the next poll may succeed."""
    try:
        return current_version(adapters_dir)
    except OSError:
        return None
