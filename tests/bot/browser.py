"""The web chat's page as a person sees it: headless Chromium, a page that is open, a message typed into it."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "the page is tested in Chromium, which is not installed"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser; only where `CHROMIUM` is not None."""
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        await browser.close()


async def opened(browser: Browser, port: int, requests: list[str] | None = None) -> Page:
    """The page in a context of its own (other cookies, other storage); `requests` gets every address it asks for."""
    page = await (await browser.new_context()).new_page()
    page.set_default_timeout(30_000)
    if requests is not None:
        page.on("request", lambda request: requests.append(request.url))
    await page.goto(f"http://127.0.0.1:{port}/")
    await page.locator("#text textarea").wait_for()
    return page


async def write(page: Page, text: str) -> None:
    """Types a message and sends it."""
    await page.locator("#text textarea").fill(text)
    await page.locator("#text textarea").press("Enter")
