"""Attacks on the whole page, as another website or a stranger in the network would make them."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from playwright.async_api import Browser, expect
from starlette.routing import BaseRoute, Mount

from bot.app import Daemon, Dependencies
from bot.clock import SystemClock
from bot.store import inbox
from bot.web import PLUGIN
from doppel.config import Config
from doppel.errors import UserError
from tests.bot.browser import CHROMIUM, NO_CHROMIUM, low_contrast, send_message
from tests.bot.harness import FakeEngine, config_in, publish
from tests.bot.web.test_chat_page import config as config  # noqa: PLC0414 a fixture
from tests.bot.web.test_chat_page import running

pytestmark = pytest.mark.slow

EVENT: dict[str, Any] = {"data": ["a" * 32, "[]"], "fn_index": 2, "session_hash": "abc123"}
OPEN_ROUTES = {
    "/",
    "/assets/x",
    "/static/x",
    "/theme.css",
    "/favicon.ico",
    "/gradio_api/app_id",
    "/gradio_api/heartbeat/x",
    "/healthz",
    "/metrics",
    "/quiz",
}


class ShiftedClock(SystemClock):
    """The system's clock, ahead by `offset` seconds."""

    offset = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.offset


@pytest.fixture
async def daemon(config: Config, engine: FakeEngine) -> AsyncIterator[Daemon]:
    async with running(config, engine) as daemon:
        yield daemon


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{daemon.port}", trust_env=False, timeout=60) as client:
        yield client


def paths_of(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route; parameters are `x`."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths_of(route.routes, prefix + route.path)
        elif isinstance(route, APIRoute):
            path = prefix + re.sub(r"\{[^}]*\}", "x", route.path)
            yield from ((method, path) for method in route.methods)
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from paths_of(router.routes, prefix)


async def test_of_gradios_routes_only_those_that_the_pages_use_are_open(
    daemon: Daemon, client: httpx.AsyncClient
) -> None:
    ((page, _),) = daemon._pages
    routes = set(paths_of(daemon._create_app(page).routes))
    closed = 0
    for method, path in routes:
        name = path.removeprefix("/quiz") or "/quiz"
        if (method in ("GET", "HEAD") and name in {*OPEN_ROUTES, "/readyz"}) or name == "/gradio_api/run/x":
            continue
        assert (await client.request(method, path)).status_code == 404, (method, path)
        closed += 1
    assert closed > 100
    assert {("POST", "/gradio_api/upload"), ("POST", "/quiz/gradio_api/upload"), ("GET", "/config")} <= routes
    assert ("GET", "/gradio_api/proxy=x") in routes


async def test_nothing_can_be_uploaded(config: Config, client: httpx.AsyncClient) -> None:
    before = set(config.root.rglob("*"))
    for prefix in ("", "/quiz"):
        for headers in ({}, {"Origin": "https://evil.example"}):
            response = await client.post(
                f"{prefix}/gradio_api/upload", files={"files": ("x.txt", b"x" * 1000)}, headers=headers
            )
            assert response.status_code == (403 if headers else 404)
    assert set(config.root.rglob("*")) == before


async def test_an_event_holds_only_texts(client: httpx.AsyncClient) -> None:
    for change in (
        {"data": ["a" * 32, {"path": "http://127.0.0.1:9/x", "meta": {"_type": "gradio.FileData"}}]},
        {"data": ["a" * 32, ["x"]]},
        {"data": {"path": "/etc/passwd"}},
        {"session_hash": "../../x"},
        {"event_data": {"x": 1}},
        {"event_id": "x"},
        {"fn_index": "2"},
        {"batched": True},
    ):
        response = await client.post("/gradio_api/run/predict", json={**EVENT, **change})
        assert (response.status_code, response.text) == (400, "not an event of this page\n")


async def test_what_is_no_event_at_all_is_refused(client: httpx.AsyncClient) -> None:
    for body in (b"", b"{", b"\xff", b"[]", b"[" * 100_000):
        assert (await client.post("/gradio_api/run/predict", content=body)).status_code == 400
    assert (await client.post("/gradio_api/run/predict", content=b"x" * 300_000)).status_code == 413


async def test_a_message_is_stored_once_and_others_do_not_write_any(daemon: Daemon, client: httpx.AsyncClient) -> None:
    chat = "c" * 32
    _, _, after = (await client.get("/")).text.partition("window.gradio_config = ")
    events = json.JSONDecoder().raw_decode(after)[0]["dependencies"]
    (number,) = [event["id"] for event in events if (len(event["inputs"]), len(event["outputs"])) == (2, 6)]

    async def submit(messages: Any, **headers: str) -> httpx.Response:
        event = {**EVENT, "fn_index": number, "data": [chat, json.dumps(messages)]}
        return await client.post("/gradio_api/run/predict", json=event, headers=headers)

    async def texts() -> list[str]:
        store = daemon._store
        shown = await store.run(inbox.visible_messages, store.persona, "web", chat, 100)
        return [message.text for message in shown if message.sender]

    one, two = {"id": "1" * 32, "text": "one"}, {"id": "2" * 32, "text": "two"}
    assert json.loads((await submit([one])).json()["data"][1]) == [one["id"]]
    assert json.loads((await submit([one, two])).json()["data"][1]) == [one["id"], two["id"]]
    assert await texts() == ["one", "two"]
    evil = {"id": "3" * 32, "text": "evil"}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ):
        assert (await submit([evil], **headers)).status_code == 403
    for wrong in ([{"id": "x", "text": "evil"}], {"id": "3" * 32}, "evil", None, [[]]):
        assert json.loads((await submit(wrong)).json()["data"][1]) == []
    many = [{"id": f"{number:032x}", "text": "many"} for number in range(30)]
    assert len(json.loads((await submit(many)).json()["data"][1])) == 20
    assert (await texts()).count("many") == 20
    assert "evil" not in await texts()


async def test_responses_close_the_page_to_others(client: httpx.AsyncClient) -> None:
    for path in ("/", "/quiz/", "/config", "/healthz"):
        headers = (await client.get(path)).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


async def test_the_page_says_nothing_of_the_machine(config: Config, client: httpx.AsyncClient) -> None:
    for path in ("/", "/quiz/"):
        page = (await client.get(path)).text
        assert str(config.root) not in page
        assert str(Path(__file__).parents[3]) not in page


def test_without_a_password_it_is_not_opened_to_others(tmp_path: Path, engine: FakeEngine) -> None:
    config = config_in(tmp_path, web={"host": "0.0.0.0", "port": 0})
    publish(config)
    around = Dependencies({"DOPPEL_WEB_PASSWORD": "  "}, {"web": PLUGIN}, lambda _: engine, SystemClock(), Random(1))
    with pytest.raises(UserError, match=r"^web\.host is 0\.0\.0\.0, .*set a password in DOPPEL_WEB_PASSWORD"):
        Daemon(config, around)
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_signing_in_with_a_browser(config: Config, engine: FakeEngine, browser: Browser, scheme: Any) -> None:
    expect.set_options(timeout=30_000)
    engine.turns = [["hi there"]]
    clock = ShiftedClock()
    async with running(config, engine, {"DOPPEL_WEB_PASSWORD": " open sesame\n"}, clock) as daemon:
        page = await (await browser.new_context(color_scheme=scheme)).new_page()
        await page.goto(f"http://127.0.0.1:{daemon.port}/quiz/")
        await expect(page).to_have_title("Sign in")
        assert await low_contrast(page) == []
        await page.locator("input[type=password]").fill("wrong")
        await page.get_by_role("button").click()
        await expect(page.get_by_role("alert")).to_have_text("Wrong password.")
        assert await low_contrast(page) == []
        await page.goto(f"http://127.0.0.1:{daemon.port}/quiz/")
        clock.offset = 60.0
        await page.locator("input[type=password]").fill("open sesame")
        await page.get_by_role("button").click()
        await expect(page.locator("#quiz")).to_contain_text("No questions yet")
        await page.locator("#heading nav a").first.click()
        await send_message(page, "hello")
        await expect(page.locator("#chat .theirs:not(.typing)")).to_contain_text("hi there")
