"""Processes of their own for tests: several that train together, or one that is killed.

They are forked off a server that has imported what is slow to import, so that each starts in a moment.
"""

import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import pytest

_SECONDS = 270.0


class Died(AssertionError):
    """A process ended without an answer."""


class Child:
    """One process that runs `target(*arguments)`, with the environment of this one and `environment`."""

    def __init__(
        self, target: Callable[..., Any], arguments: Sequence[Any] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["training.run.run"])
        self._answer, theirs = context.Pipe(duplex=False)
        full = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self.process = context.Process(target=_run, args=(theirs, full, target, tuple(arguments)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")  # the server reads it once, for all who are forked off it
            self.process.start()
        theirs.close()

    def result(self) -> Any:
        """What the target returned; raises what it raised, or Died."""
        try:
            if not self._answer.poll(_SECONDS):
                self.process.kill()
                raise Died("no answer in time")
            returned, raised, trace = self._answer.recv()
        except EOFError:
            self.process.join()
            raise Died(f"ended with {self.process.exitcode}") from None
        self.process.join()
        if raised is not None:
            raised.add_note(trace)
            raise raised
        return returned


def together(count: int, target: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `target(*arguments)` returns in each of `count` processes, started as torchrun would."""
    port = free_port()
    children = [Child(target, arguments, launcher_environment(number, count, port)) for number in range(count)]
    return [child.result() for child in children]


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def launcher_environment(number: int, count: int, port: int) -> dict[str, str]:
    """What a launcher tells process `number` of `count`."""
    return {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _run(
    answer: Connection, environment: dict[str, str], target: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    returned, raised, trace = None, None, ""
    try:
        returned = target(*arguments)
    except Exception as error:  # noqa: BLE001  # told to whoever waits for the answer
        raised, trace = error, traceback.format_exc()
    answer.send((returned, raised, trace))
    answer.close()
