"""Keeps one platform connected: whatever it raises is logged and retried, and affects no other platform."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from random import Random

from bot.cancellation import CancelledByEvent, cancel_on_event
from bot.clock import Clock
from bot.platforms import Newest, Platform, RateLimited, Receive, SingleReceiver
from doppel.errors import DoppelError
from doppel.i18n import tr
from doppel.system.backoff import Backoff

CLOSE_SECONDS = 2.0
LONGEST_WAIT = 30.0
"""Seconds between attempts. A full disk ends a platform, too, and it should go on soon after there is space again."""

log = logging.getLogger(__name__)


Receiving = Callable[[], AbstractAsyncContextManager[asyncio.Event]]
"""A block in which this daemon is the one that receives for an account; the event is set when it no longer is."""


class PlatformConnection:
    """One platform and its connection. `connected` stays set after the first successful connection.

    Args:
        platform: the service.
        clock: time.
        random: for the waits after failures.
        receiving: entered to receive from a platform that lets only one daemon receive; None: there is no other.
    """

    def __init__(self, platform: Platform, clock: Clock, random: Random, receiving: Receiving | None = None) -> None:
        self.platform = platform
        self._receiving = receiving
        self.rate_limited = platform if isinstance(platform, RateLimited) else None
        """The platform if it must be asked before each send."""
        self.connected = asyncio.Event()
        self._clock = clock
        self._backoff = Backoff(random, first=2.0, longest=LONGEST_WAIT)

    async def run(self, receive: Receive, newest: Newest) -> None:
        """Receives messages until cancelled; restarts the platform when it fails or ends."""
        while True:
            seconds = await self._attempt(receive, newest)
            await self._clock.sleep(seconds)

    async def close(self) -> None:
        """Disconnects; gives up after two seconds. Never raises."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.platform.close()
        except Exception as error:  # noqa: BLE001 - a platform may be third-party code; the others must still be closed
            log.debug("%s: close: %r", self.platform.name, error)

    async def _attempt(self, receive: Receive, newest: Newest) -> float:
        """Runs the platform until it fails or ends; returns the seconds to wait before the next attempt."""
        name = self.platform.name
        try:
            await self._receive(receive, newest)
        except CancelledByEvent:
            log.info(tr("{platform}: another daemon receives now; this one stands by", platform=name))
            return 0.0
        except DoppelError as error:
            seconds = self._backoff.next()
            # No traceback: the message says what to do.
            log.warning(
                tr("{platform}: {error} (retrying in {seconds} s)", platform=name, error=error, seconds=round(seconds))
            )
        except Exception:
            seconds = self._backoff.next()
            log.exception(tr("{platform}: failed; retrying in {seconds} s", platform=name, seconds=round(seconds)))
        else:
            seconds = self._backoff.next()
            log.warning(
                tr("{platform}: connection ended; reconnecting in {seconds} s", platform=name, seconds=round(seconds))
            )
        return seconds

    async def _receive(self, receive: Receive, newest: Newest) -> None:
        """Runs the platform while this daemon may receive from it."""
        if self._receiving is None or not isinstance(self.platform, SingleReceiver):
            await self.platform.run(receive, self._on_connected, newest)
            return
        await self.platform.connect()
        self._on_connected()
        async with self._receiving() as lost:
            await cancel_on_event(self.platform.run(receive, self._on_connected, newest), lost)

    def _on_connected(self) -> None:
        self._backoff.reset()
        if not self.connected.is_set():
            log.info(tr("{platform}: connected", platform=self.platform.name))
        self.connected.set()
