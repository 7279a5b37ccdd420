"""Whether the page's port is free."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bot.web import PLUGIN
from bot.web.check import check_page
from bot.web.settings import WebSettings
from doppel.config import parse_config
from doppel.errors import UserError
from doppel.plugins import Check, page_url


class _Health(BaseHTTPRequestHandler):
    answer = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(params=[b"alive\n", b"<html>"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, bool]]:
    """Something that listens: its port, and whether it is a doppel."""
    handler = type("Health", (_Health,), {"answer": request.param})
    with HTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running.server_port, request.param == b"alive\n"
        running.shutdown()
        thread.join()


def test_a_page_that_others_could_use_needs_a_password() -> None:
    for settings in (WebSettings(host="0.0.0.0", port=0), WebSettings(port=0, allowed_hosts=("chat.example.org",))):
        check = check_page(settings, {"DOPPEL_WEB_PASSWORD": " "})
        assert not check.ok
        assert check.level == "needed"
        assert "set a password in DOPPEL_WEB_PASSWORD" in check.hint
        assert check_page(settings, {"DOPPEL_WEB_PASSWORD": "open sesame"}).ok
        assert "use at least 8 characters" in check_page(settings, {"DOPPEL_WEB_PASSWORD": "1234567"}).hint
        with pytest.raises(UserError, match="set a password in DOPPEL_WEB_PASSWORD"):
            PLUGIN.open(settings, {})
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        for environ in ({}, {"DOPPEL_WEB_PASSWORD": "short"}):
            PLUGIN.open(WebSettings(host=host, allowed_hosts=("localhost",)), environ)


def test_a_page_that_is_switched_off_is_said_to_be() -> None:
    settings = WebSettings(enabled=False, host="0.0.0.0")
    assert PLUGIN.off_reason(settings, {}) == "web is off: web.enabled is false"
    assert PLUGIN.examine(settings, {}) == [
        Check(name="page", ok=True, hint="web is off: web.enabled is false", level="optional")
    ]
    assert page_url({"web": settings}) is None
    assert page_url({"web": WebSettings()}) == "http://127.0.0.1:7860"


@pytest.mark.parametrize("name", ["http://chat.example.org", "chat.example.org:80", "*", "", "a b"])
def test_allowed_hosts_are_plain_names(name: str) -> None:
    with pytest.raises(UserError, match=r"web\.allowed_hosts`: write names like chat\.example\.org"):
        parse_config({"web": {"allowed_hosts": [name]}}, Path("config.yaml"))


def test_a_taken_port_is_fine_if_doppel_has_it(server: tuple[int, bool]) -> None:
    port, is_doppel = server
    check = check_page(WebSettings(port=port), {})
    assert check.ok == is_doppel
    assert ("doppel is running" if is_doppel else "set another web.port") in check.hint
