"""The web chat in a real browser: a message is typed, the reply is read. Needs Chromium."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from playwright.async_api import Browser, expect

from bot.app import Daemon, Dependencies
from bot.clock import SystemClock
from bot.web import PLUGIN
from bot.web.server import listen
from doppel.adapters.habits import Habits
from doppel.config import Config
from doppel.i18n import set_language
from doppel.plugins import platform_settings
from tests.bot.browser import CHROMIUM, NO_CHROMIUM, opened, write
from tests.bot.harness import FakeEngine, config_in, publish

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    posts = [{"name": "thoughts", "to": "web:posts", "every": "1000d"}]
    config = config_in(
        tmp_path, persona={"name": "Mira"}, web={"port": port}, reply={"debounce_seconds": 0}, posts=posts
    )
    publish(config, habits=Habits(seconds_per_character=0.05))
    return config


def page_port(config: Config) -> int:
    return platform_settings(PLUGIN, config.platforms).port


@asynccontextmanager
async def running(config: Config, engine: FakeEngine) -> AsyncIterator[Daemon]:
    stop = asyncio.Event()
    around = Dependencies({}, {"web": PLUGIN}, lambda _: engine, SystemClock(), Random(1))
    daemon = Daemon(config, around)
    task = asyncio.create_task(daemon.run(stop))
    try:
        yield daemon
    finally:
        stop.set()
        await task


async def test_message_is_typed_and_the_reply_is_read(config: Config, engine: FakeEngine, browser: Browser) -> None:
    expect.set_options(timeout=30_000)
    engine.gate.clear()
    engine.turns = [["hi there", "how are you <b>today</b>?"]]
    requests: list[str] = []
    async with running(config, engine) as daemon:
        page = await opened(browser, daemon.port, requests)
        await expect(page).to_have_title("Mira")
        await expect(page.locator("#heading .state")).to_have_text("here")
        await write(page, "hello ${1+1} {{value}} <img src=x onerror=alert(1)>")
        await expect(page.locator("#chat .mine")).to_contain_text("hello ${1+1} {{value}} <img src=x onerror=alert(1)>")
        await expect(page.locator("#text textarea")).to_have_value("")
        await expect(page.locator("#chat .typing")).to_be_visible()
        engine.gate.set()
        theirs = page.locator("#chat .theirs:not(.typing)")
        await expect(theirs.nth(0)).to_contain_text("hi there")
        await expect(theirs.nth(1)).to_contain_text("how are you <b>today</b>?")
        await expect(page.locator("#chat .typing")).to_have_count(0)
        await expect(page.locator("#notice")).to_contain_text("Adapter 0001.")
        await page.reload()
        await expect(theirs.nth(1)).to_contain_text("today")
        await expect(page.locator("#chat .mine")).to_have_count(1)
    assert requests
    assert [
        one for one in requests if not one.startswith((f"http://127.0.0.1:{page_port(config)}/", "data:", "blob:"))
    ] == []


async def test_messages_in_quick_succession_all_arrive(config: Config, engine: FakeEngine, browser: Browser) -> None:
    expect.set_options(timeout=30_000)
    engine.turns = [["first"], ["second"], ["third"]]
    async with running(config, engine) as daemon:
        page = await opened(browser, daemon.port)
        for text in ("one", "two", "three", "three"):
            await write(page, text)
            await expect(page.locator("#text textarea")).to_have_value("")  # as whoever types sees it
        await expect(page.locator("#chat .mine")).to_have_count(4)
        texts = await page.locator("#chat .mine").all_inner_texts()
    assert sorted(text.split()[0] for text in texts) == ["one", "three", "three", "two"]


async def test_every_browser_has_its_own_chat_and_all_see_posts(
    config: Config, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    engine.turns = [["for one"]]
    async with running(config, engine) as daemon:
        first, second = await asyncio.gather(opened(browser, daemon.port), opened(browser, daemon.port))
        await write(first, "hello")
        await expect(first.locator("#chat .theirs:not(.typing)")).to_contain_text("for one")
        await expect(second.locator("#chat .bubble")).to_have_count(0)
        engine.turns = [["what a day"]]
        ((post, trigger),) = daemon._scheduler._posts
        await daemon._scheduler._publish(post, next(trigger.slots(SystemClock().now())))
        for page in (first, second):
            await expect(page.locator("#chat .post")).to_contain_text("what a day")


async def test_what_is_typed_while_the_daemon_is_away_stays_in_the_field(
    config: Config, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    engine.turns = [["before"], ["after"]]
    async with running(config, engine) as daemon:
        page = await opened(browser, daemon.port)
        await write(page, "one")
        await expect(page.locator("#chat .theirs:not(.typing)")).to_contain_text("before")
    await write(page, "two")
    await expect(page.locator("#text textarea")).to_have_value("two")  # it was not taken, so it is not lost
    async with running(config, engine):
        await page.reload()
        await expect(page.locator("#heading .state")).to_have_text("here")
        await write(page, "two")
        await expect(page.locator("#chat .theirs:not(.typing)").nth(1)).to_contain_text("after")


async def test_page_speaks_chinese_and_says_that_the_persona_wakes_up(
    config: Config, engine: FakeEngine, browser: Browser
) -> None:
    expect.set_options(timeout=30_000)
    set_language("zh")
    pending_messages = asyncio.Event()
    load = engine.load_adapter

    async def load_later(folder: Path) -> str:
        await pending_messages.wait()
        return await load(folder)

    engine.load_adapter = load_later  # type: ignore[method-assign]
    engine.turns = [["早上好"]]
    async with running(config, engine) as daemon:
        page = await opened(browser, daemon.port)
        await expect(page.locator("#heading .state")).to_have_text("正在醒来，稍后会回复你的消息")
        await expect(page.locator("#text textarea")).to_have_attribute("placeholder", "写点什么……")
        await write(page, "你好")
        pending_messages.set()
        await expect(page.locator("#heading .state")).to_have_text("在线")
        await expect(page.locator("#chat .theirs:not(.typing)")).to_contain_text("早上好")
