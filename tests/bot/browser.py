"""A headless Chromium that opens the pages as a person does: sees them, types a message, measures contrast."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "the page is tested in Chromium, which is not installed"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser; requires that `CHROMIUM` is not None."""
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        await browser.close()


async def open_chat(browser: Browser, port: int, requests: list[str] | None = None, **context: Any) -> Page:
    """The chat page in a browser context of its own (cookies, storage); `requests` collects every requested URL.

    `context`: options of the context, such as `viewport` or `color_scheme`.
    """
    page = await (await browser.new_context(**context)).new_page()
    page.set_default_timeout(30_000)
    if requests is not None:
        page.on("request", lambda request: requests.append(request.url))
    await page.goto(f"http://127.0.0.1:{port}/")
    await page.locator("#text textarea").wait_for()
    return page


async def send_message(page: Page, text: str) -> None:
    """Types a message and sends it."""
    await page.locator("#text textarea").fill(text)
    await page.locator("#text textarea").press("Enter")


async def low_contrast(page: Page) -> list[str]:
    """Visible texts and placeholders whose contrast with their background is below 4.5:1 (WCAG 2.2 AA)."""
    texts: list[str] = await page.evaluate(_LOW_CONTRAST)
    return texts


# Relative luminance and contrast ratio: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio. Half-transparent colours are
# blended with what is below them; a canvas turns any CSS colour into RGBA. Texts for screen readers are 1 px high.
_LOW_CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const blend = (top, bottom) => [0, 1, 2].map((i) => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
    const background = (element) => {
        if (!element) return rgba(matchMedia("(prefers-color-scheme: dark)").matches ? "black" : "white");
        const color = rgba(getComputedStyle(element).backgroundColor);
        return color[3] === 1 ? color : blend(color, background(element.parentElement));
    };
    const opacity = (element) =>
        element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
    const luminance = (color) => {
        const [r, g, b] = color.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (element, color) => {
        const below = background(element), text = rgba(color);
        text[3] *= opacity(element);
        const [light, dark] = [luminance(blend(text, below)), luminance(below)].sort((a, b) => b - a);
        return (light + 0.05) / (dark + 0.05);
    };
    const low = [];
    const check = (text, element, color) => {
        const value = ratio(element, color);
        if (value < 4.5) low.push(`${text.trim()}: ${value.toFixed(2)}`);
    };
    const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (nodes.nextNode()) {
        const text = nodes.currentNode.data, element = nodes.currentNode.parentElement;
        const isVisible = element.checkVisibility({visibilityProperty: true}) && element.offsetHeight > 1;
        if (text.trim() && isVisible)
            check(text, element, getComputedStyle(element).color);
    }
    for (const field of document.querySelectorAll("input, textarea"))
        if (field.placeholder && field.checkVisibility({visibilityProperty: true}))
            check(field.placeholder, field, getComputedStyle(field, "::placeholder").color);
    return low;
}"""
