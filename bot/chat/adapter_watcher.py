"""Watches for newly published adapters and loads them while the daemon runs; keeps the old one if the new one fails."""

import asyncio
import logging
from pathlib import Path
from random import Random

import msgspec

from bot.chat.responder import LoadedAdapter, Responder
from bot.clock import Clock
from doppel.adapters.versions import MANIFEST, check_base, current_version
from doppel.config import ReplySettings
from doppel.engine import Engine, EngineUnavailable, unsupported
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.persona import Persona, read_persona
from doppel.system.backoff import Backoff

POLL_SECONDS = 1.0

LONGEST_WAIT = 60.0
"""Seconds between two attempts to load an adapter that could not be loaded for a passing reason."""

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


class _Failure(msgspec.Struct, frozen=True):
    """Why a version is not in use.

    Attributes:
        folder: of the version.
        manifest_mtime: of its manifest when it was tried; a changed one is tried at once.
        retry_at: when it is tried again, by the monotonic clock; None: only when it changes.
        text: the error.
    """

    folder: Path
    manifest_mtime: int | None
    retry_at: float | None
    text: str


class AdapterWatcher:
    """Keeps the responder on the adapter version that is in use.

    Args:
        adapters_dir: where versions are published.
        reply: sampling overrides.
        engine: loads the adapters.
        responder: switched to a new version; already started.
        clock: time.
        random: for the waits after failures.
    """

    def __init__(
        self,
        adapters_dir: Path,
        reply: ReplySettings,
        engine: Engine,
        responder: Responder,
        clock: Clock,
        *,
        random: Random | None = None,
    ) -> None:
        self._adapters_dir = adapters_dir
        self._reply = reply
        self._engine = engine
        self._responder = responder
        self._clock = clock
        self._failure: _Failure | None = None
        self._backoff = Backoff(random or Random(), longest=LONGEST_WAIT)
        self._manifest_mtime: int | None = None

    async def run(self) -> None:
        """Polls once a second until cancelled."""
        while True:
            await self.poll()
            await self._clock.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Loads the version in use if it is not the loaded one; a failure is logged once.

        A version that is refused is tried again when its manifest changes, and one that failed for a passing reason
        (the engine or the disk is away, memory ran out) after a while.
        """
        folder = await asyncio.to_thread(_current_folder, self._adapters_dir)
        loaded = self._responder.adapter
        assert loaded is not None
        if folder is None:
            return
        if folder == loaded.persona.folder:
            self._failure = None
            await self._poll_sampling(loaded)
            return
        mtime = await asyncio.to_thread(_mtime, folder / MANIFEST)  # before reading: a later change counts
        if not self._is_due(folder, mtime):
            return
        try:
            persona = await asyncio.to_thread(read_persona, folder)
            adapter = await load_adapter(self._engine, persona, self._reply)
        except (DoppelError, OSError, MemoryError, RuntimeError) as error:
            self._on_failure(folder, mtime, error, loaded.version)
            return
        self._failure = None
        self._responder.switch_adapter(adapter)
        log.info(tr("switched to adapter {version}", version=adapter.version))
        if adapter.name != loaded.name:  # the engine gives the same weights the same name
            await self._engine.drop_adapter(loaded.name)

    def _is_due(self, folder: Path, mtime: int | None) -> bool:
        failure = self._failure
        if failure is None or failure.folder != folder or failure.manifest_mtime != mtime:
            self._backoff.reset()
            return True
        return failure.retry_at is not None and self._clock.monotonic() >= failure.retry_at

    def _on_failure(self, folder: Path, mtime: int | None, error: Exception, version: str) -> None:
        """Decides when to try again; logs what was not logged before."""
        is_passing, text = _is_passing(error), str(error) or type(error).__name__
        last = self._failure
        if last is None or last.folder != folder or last.text != text:
            log.warning(
                tr(
                    "new adapter cannot be loaded now, keeping {version} until it can: {error}",
                    version=version,
                    error=text,
                )
                if is_passing
                else tr("new adapter refused, keeping {version}: {error}", version=version, error=text)
            )
        retry_at = self._clock.monotonic() + self._backoff.next() if is_passing else None
        self._failure = _Failure(folder, mtime, retry_at, text)

    async def _poll_sampling(self, loaded: LoadedAdapter) -> None:
        """Applies new sampling parameters once `doppel tune` has written them into the loaded version's manifest."""
        mtime = await asyncio.to_thread(_mtime, loaded.persona.folder / MANIFEST)
        if mtime is None or mtime == self._manifest_mtime:
            return
        self._manifest_mtime = mtime
        try:
            persona = await asyncio.to_thread(read_persona, loaded.persona.folder)
            sampling = persona.sampling(self._reply, self._engine.transcript_of(loaded.name))
        except (DoppelError, OSError, MemoryError):  # damaged after loading, which matters only at the next start
            return
        if sampling != loaded.sampling and not unsupported(self._engine, sampling):
            self._responder.switch_adapter(LoadedAdapter(persona, loaded.name, sampling))
            log.info(tr("adapter {version}: using its tuned sampling", version=loaded.version))


def _is_passing(error: BaseException | None) -> bool:
    """Whether the machine or the engine failed and not the adapter. Engines refuse an adapter for both."""
    while error is not None:
        if isinstance(error, EngineUnavailable | OSError | MemoryError) and not isinstance(error, FileNotFoundError):
            return True
        if isinstance(error, RuntimeError) and "memory" in str(error):  # as torch says it
            return True
        error = error.__cause__ or error.__context__
    return False


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
