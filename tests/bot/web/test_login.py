"""The password in front of the page."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bot.web.login import SESSION, Login
from doppel.i18n import set_language
from tests.bot.harness import FakeClock

PASSWORD = "correct horse ä"


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("inside")


PATHS = ("/", "/quiz/", "/healthz", "/readyz", "/metrics", "/gradio_api/run/predict", "/assets/x.js")
APP = Starlette(routes=[Route(path, answer, methods=["GET", "POST"]) for path in PATHS])


def client_at(login: Login, address: str = "192.0.2.1", scheme: str = "http") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(login, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url=f"{scheme}://box.lan")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def login(clock: FakeClock) -> Login:
    return Login(APP, PASSWORD, clock)


@pytest.fixture
async def client(login: Login) -> AsyncIterator[httpx.AsyncClient]:
    async with client_at(login) as client:
        yield client


async def sign_in(client: httpx.AsyncClient, password: str = PASSWORD, page: str = "./") -> httpx.Response:
    return await client.post("/login", data={"password": password, "page": page})


async def test_everything_but_monitoring_needs_it(client: httpx.AsyncClient) -> None:
    for path in PATHS:
        for method in ("GET", "POST"):
            response = await client.request(method, path)
            is_open = path in ("/healthz", "/readyz", "/metrics")
            assert response.status_code == (200 if is_open else 401)
            assert (response.text == "inside") == is_open
    assert (await client.get("/gradio_api/run/predict")).text == "sign in on the page first\n"


@pytest.mark.parametrize(
    ("asked", "action", "page"), [("/", "login", "./"), ("/quiz/", "../login", "quiz/"), ("/quiz", "login", "quiz/")]
)
async def test_form_leads_to_the_page_that_was_asked_for(
    client: httpx.AsyncClient, asked: str, action: str, page: str
) -> None:
    form = await client.get(asked)
    assert form.status_code == 401
    assert f'action="{action}"' in form.text
    assert f'value="{page}"' in form.text
    response = await sign_in(client, f" {PASSWORD}\n", page)
    assert (response.status_code, response.headers["location"]) == (303, page)
    assert (await client.get("/")).text == "inside"
    assert (await client.post("/gradio_api/run/predict")).text == "inside"


async def test_cookie_is_for_this_site_and_not_for_scripts(login: Login) -> None:
    for scheme in ("http", "https"):
        async with client_at(login, scheme=scheme) as client:
            cookie = (await sign_in(client)).headers["set-cookie"].lower()
        assert "; httponly" in cookie
        assert "; samesite=strict" in cookie
        assert ("; secure" in cookie) == (scheme == "https")
        assert "horse" not in cookie


@pytest.mark.parametrize("page", ["https://evil.example/", "//evil.example", "/config"])
async def test_it_leads_nowhere_else(client: httpx.AsyncClient, page: str) -> None:
    assert (await sign_in(client, page=page)).headers["location"] == "./"


async def test_a_wrong_password_waits_longer_each_time(client: httpx.AsyncClient, clock: FakeClock) -> None:
    for wait in (1, 2, 4, 8, 16, 32, 60, 60):
        response = await sign_in(client, "wrong")
        assert response.status_code == 401
        assert "Wrong password." in response.text
        assert "set-cookie" not in response.headers
        blocked = await sign_in(client)  # not even the right one is looked at
        assert (blocked.status_code, blocked.headers["retry-after"]) == (429, str(wait))
        assert f"Too many attempts. Try again in {wait} s." in blocked.text
        await clock.advance(wait)
    assert (await sign_in(client)).status_code == 303
    await sign_in(client, "wrong")
    assert (await sign_in(client)).headers["retry-after"] == "1"


async def test_others_need_not_wait(login: Login) -> None:
    async with client_at(login, "2001:db8::1") as guessing:
        await sign_in(guessing, "wrong")
        assert (await sign_in(guessing)).status_code == 429
    async with client_at(login, "2001:db8::2") as neighbour:  # the same network, which one machine has for itself
        assert (await sign_in(neighbour)).status_code == 429
    async with client_at(login, "2001:db8:0:1::1") as other:
        assert (await sign_in(other)).status_code == 303


async def test_many_addresses_do_not_guess_faster(login: Login, clock: FakeClock) -> None:
    for number in range(30):
        async with client_at(login, f"192.0.2.{number}") as guessing:
            assert (await sign_in(guessing, "wrong")).status_code == 401
    async with client_at(login, "198.51.100.1") as other:
        assert (await sign_in(other, "wrong")).status_code == 401
    async with client_at(login, "198.51.100.2") as another:
        assert (await sign_in(another)).headers["retry-after"] == "2"
        await clock.advance(2)
        assert (await sign_in(another)).status_code == 303


async def test_session_ends(client: httpx.AsyncClient, clock: FakeClock) -> None:
    await sign_in(client)
    clock.wall_offset = SESSION * 0.99
    assert (await client.get("/")).status_code == 200
    clock.wall_offset = SESSION
    assert (await client.get("/")).status_code == 401


async def test_session_outlives_a_restart_but_not_another_password(client: httpx.AsyncClient, clock: FakeClock) -> None:
    await sign_in(client)
    for password, status in ((PASSWORD, 200), ("another", 401)):
        async with client_at(Login(APP, password, clock)) as again:
            again.cookies = client.cookies
            assert (await again.get("/")).status_code == status


async def test_a_forged_cookie_does_not_help(client: httpx.AsyncClient) -> None:
    await sign_in(client)
    ((name, value),) = client.cookies.items()
    end, _, signature = value.partition(".")
    for forged in (
        f"{int(end) + 1}.{signature}",
        f"{end}.",
        f"{end}.{signature[:-1]}",
        ".",
        "",
        "x.y",
        f"ä.{signature}",
    ):
        client.cookies.clear()
        response = await client.get("/", headers=[(b"Cookie", f"{name}={forged}".encode())])
        assert response.status_code == 401
    assert (await client.get("/", headers={"Cookie": f"{name}={value}"})).status_code == 200


@pytest.mark.parametrize("body", [b"", b"\xff", b"a=1&b=2&c=3&d=4&e=5&password=x", b"x" * 10_000, b'{"password": 1}'])
async def test_what_is_no_form_is_a_wrong_password(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await client.post("/login", content=body)).status_code == 401


async def test_form_is_in_the_users_language(client: httpx.AsyncClient) -> None:
    set_language("zh")
    form = (await client.get("/login")).text
    assert '<html lang="zh-CN">' in form
    assert "登录" in form
