"""Other websites, other host names and oversized requests do not reach the page."""

from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from bot.web.request_guard import MAX_BODY_BYTES, RequestGuard

NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()


ROUTES = [Route("/", echo, methods=["GET", "POST", "PUT"]), WebSocketRoute("/ws", talk)]


def client_of(host: str, *allowed_hosts: str) -> httpx.AsyncClient:
    guard = RequestGuard(Starlette(routes=ROUTES), host, allowed_hosts)
    return httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize(
    ("bound", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:7860", 200),
        ("127.0.0.1", "LOCALHOST:1", 200),
        ("127.0.0.1", "[::1]:7860", 200),
        ("127.0.0.1", "evil.example", 403),
        ("127.0.0.1", "127.0.0.1.evil.example:7860", 403),
        ("127.0.0.1", "evil.example@127.0.0.1", 403),
        ("127.0.0.1", "127.0.0.1:x", 403),
        ("127.0.0.1", "", 403),
        ("127.0.0.1", "192.168.1.5:7860", 403),
        ("127.0.0.1", "chat.example.org", 200),
        ("0.0.0.0", "192.168.1.5:7860", 200),
        ("0.0.0.0", "localhost:7860", 200),
        ("0.0.0.0", "chat.example.org:443", 200),
        ("0.0.0.0", "evil.example", 403),
        ("box.lan", "Box.lan:7860", 200),
        ("box.lan", "evil.example", 403),
        ("::", "[2001:db8::1]:7860", 200),
    ],
)
async def test_host_names(bound: str, host: str, status: int) -> None:
    async with client_of(bound, "chat.example.org") as client:
        response = await client.get("/", headers={"Host": host})
    assert response.status_code == status
    if status == 403:
        assert response.text == "this host name is not allowed; add it to web.allowed_hosts in config.yaml\n"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:7860", 200),
        ("https://127.0.0.1:7860", 200),  # behind a proxy that decrypts
        ("http://localhost:7860", 403),
        ("http://127.0.0.1:8888", 403),
        ("http://127.0.0.1", 403),
        ("https://evil.example", 403),
        ("http://127.0.0.1:7860.evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_origins(method: str, origin: str, status: int) -> None:
    async with client_of("127.0.0.1") as client:
        response = await client.request(method, "/", headers={"Origin": origin})
    assert response.status_code == status


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", {"Sec-Fetch-Site": "none"}, 200),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", **NAVIGATION}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", **NAVIGATION}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ("GET", {"Sec-Fetch-Site": "nonsense"}, 403),
    ],
)
async def test_where_a_request_comes_from(method: str, headers: dict[str, str], status: int) -> None:
    async with client_of("127.0.0.1") as client:
        response = await client.request(method, "/", headers=headers)
    assert response.status_code == status
    if status == 403:
        assert response.text == "requests from other websites are not allowed\n"


async def test_bodies_are_limited() -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 1000 + 1):
            yield b"x" * 1000

    async def pieces() -> object:
        for chunk in chunks():
            yield chunk

    async with client_of("127.0.0.1") as client:
        whole = await client.post("/", content=b"x" * MAX_BODY_BYTES)
        assert (whole.status_code, whole.text) == (200, str(MAX_BODY_BYTES))
        larger = await client.post("/", content=b"x" * (MAX_BODY_BYTES + 1))
        assert (larger.status_code, larger.text) == (413, "the request is larger than 256 KB\n")
        assert (await client.put("/", content=pieces())).status_code == 413  # type: ignore[arg-type]
        assert (await client.put("/", content=b"x" * 10_000_000)).status_code == 413
        assert (await client.request("GET", "/", content=b"x" * 300_000)).status_code == 413


def test_websockets_are_refused() -> None:
    client = TestClient(RequestGuard(Starlette(routes=ROUTES), "127.0.0.1"), base_url="http://127.0.0.1")
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws"):
        pass
