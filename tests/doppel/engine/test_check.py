"""`doppel doctor` says of each engine what it lacks, and asks a server whether it is there."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from doppel.config import parse_config
from doppel.engine.check import EngineCheck, check_engine


class Answers(BaseHTTPRequestHandler):
    """A server that lists one model to whoever knows the key."""

    body = b'{"data": [{"id": "base"}]}'

    def do_GET(self) -> None:
        is_known = self.headers["Authorization"] == "Bearer right" and self.path == "/v1/models"
        self.send_response(200 if is_known else 401)
        self.end_headers()
        self.wfile.write(self.body if is_known else b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def url() -> Iterator[str]:
    yield from serve(Answers)


@pytest.fixture
def other_url() -> Iterator[str]:
    yield from serve(type("Others", (Answers,), {"body": b"[]"}))


def run_check(tmp_path: Path, environ: dict[str, str] | None = None, **engine: object) -> EngineCheck:
    return check_engine(
        parse_config({"engine": engine, "model": {"device": "cpu"}}, tmp_path / "config.yaml"), environ or {}
    )


def test_local_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_check(tmp_path) == EngineCheck(True, "transformers")
    assert run_check(tmp_path, backend="llamacpp") == EngineCheck(True, "llamacpp")
    assert "no such file" in run_check(tmp_path, backend="llamacpp", gguf="none.gguf").hint
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "needs at least 2 GPUs" in run_check(tmp_path, split=True).hint
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    missing = run_check(tmp_path, backend="llamacpp")
    assert not missing.ok
    assert "doppel[llamacpp]" in missing.hint
    assert "unknown engine `abacus`" in run_check(tmp_path, backend="abacus").hint


def test_a_server_and_its_key(tmp_path: Path, url: str) -> None:
    right = {"DOPPEL_ENGINE_KEY": "right"}
    assert run_check(tmp_path, right, backend="openai", url=f"{url}/v1") == EngineCheck(True, f"base, {url}")
    assert (
        "has no model other; available: base"
        in run_check(tmp_path, right, backend="openai", url=url, remote_model="other").hint
    )
    assert "requires a key; set DOPPEL_ENGINE_KEY" in run_check(tmp_path, backend="openai", url=url).hint
    wrong = run_check(tmp_path, {"DOPPEL_ENGINE_KEY": "secret"}, backend="openai", url=url)
    assert not wrong.ok
    assert "rejected the key" in wrong.hint
    assert "secret" not in wrong.hint


def test_a_key_may_be_in_a_file(tmp_path: Path, url: str) -> None:
    file = tmp_path / "key"
    file.write_text("right\n")
    file.chmod(0o600)
    environ = {"DOPPEL_ENGINE_KEY_FILE": str(file)}
    assert run_check(tmp_path, environ, backend="openai", url=url).ok
    file.chmod(0o640)
    assert "other users can read" in run_check(tmp_path, environ, backend="openai", url=url).hint


def test_an_unreachable_or_different_server(tmp_path: Path, other_url: str) -> None:
    gone = run_check(tmp_path, backend="openai", url="http://127.0.0.1:9/v1")
    assert not gone.ok
    assert "cannot reach" in gone.hint
    other = run_check(tmp_path, {"DOPPEL_ENGINE_KEY": "right"}, backend="openai", url=other_url)
    assert "not a server with OpenAI's API" in other.hint
