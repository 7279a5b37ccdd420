"""The page's server: health, readiness, and nobody else's business."""

import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request

from bot.web.metrics_route import metrics_response
from bot.web.server import HttpServer, PageAccess, create_app, listen
from doppel.errors import UserError
from tests.bot.harness import FakeClock


class Readiness:
    reason: str | None = "starting"

    def __call__(self) -> str | None:
        return self.reason


async def metrics() -> bytes:
    return b"doppel_ready 1.0\n"


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
async def client(readiness: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(readiness, PageAccess("127.0.0.1", password="a long password"), FakeClock(), metrics)
    server = HttpServer(app, listen("127.0.0.1", 0))
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


async def test_metrics_need_no_password_on_this_machine(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert (answer.status_code, answer.text) == (200, "doppel_ready 1.0\n")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    "headers", [{"X-Forwarded-For": "203.0.113.9"}, {"X-Forwarded-For": "127.0.0.1"}, {"Via": "1.1 proxy"}]
)
async def test_metrics_are_not_there_through_a_proxy(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.get("/metrics", headers=headers)
    assert (answer.status_code, answer.text) == (404, "not found\n")


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.168.1.7", 404),
        ("::ffff:192.168.1.7", 404),
        ("unknown", 404),
    ],
)
async def test_metrics_are_not_there_for_other_machines(host: str, code: int) -> None:
    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "client": (host, 5000)}
    assert (await metrics_response(Request(scope), metrics)).status_code == code


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
