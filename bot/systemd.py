"""Tells systemd when the daemon can reply, that it still works, and when it stops (sd_notify of a `Type=notify` unit).

The protocol is one datagram a message; the libraries for it are unmaintained or need systemd's headers to install.
https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping

from bot.clock import Clock

POLL_SECONDS = 5.0
"""How often the status is looked at, if the watchdog does not want to hear more often."""

SEND_TIMEOUT = 1.0

log = logging.getLogger(__name__)


class ServiceManager:
    """The service manager that started this process. Without one every call does nothing.

    Args:
        environ: with NOTIFY_SOCKET, and WATCHDOG_USEC and WATCHDOG_PID if there is a watchdog.
        clock: time.
    """

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog_seconds = _watchdog_seconds(environ)
        self._clock = clock

    async def run(self, ready: asyncio.Event, problem: Callable[[], str | None], hangs: Callable[[], bool]) -> None:
        """Reports until cancelled.

        Args:
            ready: set once the first reply is possible.
            problem: why no reply is possible now, in one line; None if one is.
            hangs: whether inference makes no progress. The watchdog then hears nothing more and systemd restarts the
                process, as it does when the event loop no longer gets here.
        """
        if self._address is None:
            await asyncio.Event().wait()
        seconds = min(POLL_SECONDS, self._watchdog_seconds / 3 if self._watchdog_seconds else POLL_SECONDS)
        is_announced, status = False, ""
        while True:
            messages = []
            if ready.is_set() and not is_announced:
                is_announced = True
                messages.append("READY=1")
            if (new_status := problem() or "ready") != status:
                status = new_status
                messages.append(f"STATUS={' '.join(status.split())}")
            if self._watchdog_seconds and not hangs():
                messages.append("WATCHDOG=1")
            self._send(messages)
            if is_announced:
                await self._clock.sleep(seconds)
            else:
                await self._wait_until(ready, seconds)

    def stopping(self) -> None:
        """Reports that the shutdown has begun."""
        self._send(["STOPPING=1"])

    async def _wait_until(self, ready: asyncio.Event, seconds: float) -> None:
        """Waits for the event, but no longer than `seconds`."""
        tasks = (asyncio.create_task(ready.wait()), asyncio.create_task(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _send(self, messages: list[str]) -> None:
        if self._address is None or not messages:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(SEND_TIMEOUT)
                channel.sendto("\n".join(messages).encode(), self._address)
        except OSError as error:  # a manager that is restarting; what counts is sent again
            log.debug("systemd: %s", error)


def _address(name: str) -> str | None:
    """The socket's address: a path, or with a leading NUL a name in Linux's abstract namespace."""
    if name.startswith("@"):
        return f"\0{name[1:]}"
    return name if name.startswith("/") else None


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """How long the watchdog waits for a sign of life; 0: there is none, or it watches another process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0
