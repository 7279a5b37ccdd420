"""Whether the page's port is free."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bot.web.check import check_page
from bot.web.settings import WebSettings


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


def test_a_taken_port_is_fine_if_doppel_has_it(server: tuple[int, bool]) -> None:
    port, is_doppel = server
    check = check_page(WebSettings(port=port))
    assert check.ok == is_doppel
    assert ("doppel is running" if is_doppel else "set another web.port") in check.hint
