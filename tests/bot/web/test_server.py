"""The page's server: health, readiness, and nobody else's business."""

import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from bot.web.server import HttpServer, PageAccess, create_app, listen
from doppel.errors import UserError
from tests.bot.harness import FakeClock


class Readiness:
    reason: str | None = "starting"

    def __call__(self) -> str | None:
        return self.reason


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
async def client(readiness: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    server = HttpServer(create_app(readiness, PageAccess("127.0.0.1"), FakeClock()), listen("127.0.0.1", 0))
    server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        yield client
    await server.stop()


async def test_alive_at_once_ready_later(client: httpx.AsyncClient, readiness: Readiness) -> None:
    assert (await client.get("/healthz")).status_code == 200
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "starting\n")
    readiness.reason = None
    assert (await client.get("/readyz")).status_code == 200


async def test_page_elsewhere_cannot_reach_it_under_another_name(client: httpx.AsyncClient) -> None:
    assert (await client.get("/readyz", headers={"Host": "evil.example"})).status_code == 403
    assert (await client.get("/healthz", headers={"Host": "localhost:7860"})).status_code == 200


async def test_browser_is_told_to_load_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/healthz")).headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "connect-src 'self';" in policy
    assert not any(word in policy for word in ("http", "ws:", "*"))


def test_port_in_use_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127\.0\.0\.1:{port}: the port is in use; .*web\.port"):
            listen("127.0.0.1", port)


def test_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1:0: .*web\.host"):
        listen("192.0.2.1", 0)
