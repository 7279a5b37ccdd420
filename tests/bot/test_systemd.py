"""What systemd is told, received by a real datagram socket as systemd has it."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.cancellation import cancel_tasks
from bot.systemd import POLL_SECONDS, ServiceManager
from tests.bot.harness import FakeClock


@pytest.fixture
def channel() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0doppel-test-{os.getpid()}")
        channel.setblocking(False)
        yield channel


def received(channel: socket.socket) -> list[str]:
    """Every line that was sent since the last call."""
    lines: list[str] = []
    while True:
        try:
            lines += channel.recv(4096).decode().split("\n")
        except BlockingIOError:
            return lines


class Service:
    """A reporting service manager, and what it is told about the daemon."""

    def __init__(self, channel: socket.socket, **environ: str) -> None:
        name = channel.getsockname().decode().replace("\0", "@")
        self.clock = FakeClock()
        self.ready = asyncio.Event()
        self.problem: str | None = "starting: loading the model"
        self.hangs = False
        self.manager = ServiceManager({"NOTIFY_SOCKET": name, **environ}, self.clock)
        self.task = asyncio.create_task(self.manager.run(self.ready, lambda: self.problem, lambda: self.hangs))

    async def become_ready(self) -> None:
        self.problem = None
        self.ready.set()
        for _ in range(5):
            await asyncio.sleep(0)


async def test_ready_is_sent_once_when_a_reply_is_possible(channel: socket.socket) -> None:
    service = Service(channel)
    await service.clock.advance(3 * POLL_SECONDS)
    assert received(channel) == ["STATUS=starting: loading the model"]
    await service.become_ready()
    assert received(channel) == ["READY=1", "STATUS=ready"]
    await service.clock.advance(10 * POLL_SECONDS)
    assert received(channel) == []
    service.manager.stopping()
    assert received(channel) == ["STOPPING=1"]
    await cancel_tasks(service.task)


async def test_a_problem_is_shown_as_one_line(channel: socket.socket) -> None:
    service = Service(channel)
    await service.become_ready()
    received(channel)
    service.problem = "the engine failed\nREADY=1"
    await service.clock.advance(POLL_SECONDS)
    assert received(channel) == ["STATUS=the engine failed READY=1"]
    service.problem = None
    await service.clock.advance(POLL_SECONDS)
    assert received(channel) == ["STATUS=ready"]
    await cancel_tasks(service.task)


async def test_the_watchdog_hears_nothing_while_inference_hangs(channel: socket.socket) -> None:
    service = Service(channel, WATCHDOG_USEC="6000000", WATCHDOG_PID=str(os.getpid()))
    await service.become_ready()
    received(channel)
    await service.clock.advance(6)
    assert received(channel) == ["WATCHDOG=1"] * 3
    service.hangs = True
    await service.clock.advance(60)
    assert received(channel) == []
    await cancel_tasks(service.task)


async def test_the_watchdog_of_another_process_is_not_ours(channel: socket.socket) -> None:
    service = Service(channel, WATCHDOG_USEC="6000000", WATCHDOG_PID="1")
    await service.become_ready()
    await service.clock.advance(60)
    assert received(channel) == ["READY=1", "STATUS=ready"]
    await cancel_tasks(service.task)


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1", "/nowhere/notify"])
async def test_without_systemd_nothing_happens(name: str) -> None:
    ready = asyncio.Event()
    ready.set()
    clock = FakeClock()
    manager = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "x"}, clock)
    task = asyncio.create_task(manager.run(ready, lambda: None, lambda: False))
    await clock.advance(60)
    manager.stopping()
    assert not task.done()
    await cancel_tasks(task)


async def test_a_socket_with_a_path_is_reached(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        path = tmp_path / "n"
        channel.bind(str(path))
        channel.setblocking(False)
        ServiceManager({"NOTIFY_SOCKET": str(path)}, FakeClock()).stopping()
        assert received(channel) == ["STOPPING=1"]
