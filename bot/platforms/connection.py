"""A line to one platform: kept up while the daemon runs. One that fails is tried again and stops no other.

Knows the platform contract and nothing of what is said.
"""

import asyncio
import logging
from random import Random

from bot.clock import Clock
from bot.platforms import Newest, Platform, Receive
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.backoff import Backoff

CLOSE_SECONDS = 2.0

log = logging.getLogger(__name__)


class PlatformConnection:
    """One platform with whether it is connected yet. `connected` stays set once the first connection stood."""

    def __init__(self, platform: Platform, clock: Clock, random: Random) -> None:
        self.platform = platform
        self.connected = asyncio.Event()
        self._clock = clock
        self._backoff = Backoff(random, first=2.0, longest=300.0)

    async def run(self, receive: Receive, newest: Newest) -> None:
        """Takes in messages until cancelled; whatever the platform raises is logged and tried again."""
        while True:
            seconds = await self._attempt(receive, newest)
            await self._clock.sleep(seconds)

    async def close(self) -> None:
        """Leaves the service; gives up after two seconds. Never raises."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.platform.close()
        except Exception as error:  # noqa: BLE001 - a platform is third-party code; the others must still be closed
            log.debug("%s: close: %r", self.platform.name, error)

    async def _attempt(self, receive: Receive, newest: Newest) -> float:
        """Runs the platform once and returns the seconds to wait after it ended."""
        name = self.platform.name
        try:
            await self.platform.run(receive, self._connect, newest)
        except DoppelError as error:
            seconds = self._backoff.next()
            # No traceback: the text says what to do.
            log.warning(
                tr("{platform}: {error} (next try in {seconds} s)", platform=name, error=error, seconds=round(seconds))
            )
        except Exception:
            seconds = self._backoff.next()
            log.exception(tr("{platform}: failed; next try in {seconds} s", platform=name, seconds=round(seconds)))
        else:
            seconds = self._backoff.next()
            log.warning(tr("{platform}: ended; next try in {seconds} s", platform=name, seconds=round(seconds)))
        return seconds

    def _connect(self) -> None:
        self._backoff.reset()
        if not self.connected.is_set():
            log.info(tr("{platform}: connected", platform=self.platform.name))
        self.connected.set()
