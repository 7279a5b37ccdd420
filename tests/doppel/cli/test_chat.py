"""`doppel chat` driven through its standard input, with a tiny persona."""

import io
import json
import signal
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from doppel.adapters.guard import build_guard
from doppel.cli.app import as_command
from doppel.cli.chat import Screen, TerminalChat, chat
from doppel.cli.chat_commands import run_command
from doppel.config import parse_config
from doppel.engine import Engine, Request, Sampling, Token
from doppel.errors import UserError
from doppel.models.base import load_tokenizer
from doppel.persona import read_persona
from doppel.transcript import ME, Header, Transcript, Turn
from tests.conftest import PublishAdapter
from tests.doppel.adapters.test_guard import SECRET

Chat = Callable[..., Result]

LINES = ("hello", b"caf\xe9", "and you?", "really?", "no way", "/temperature 0")
"""A random model says nothing now and then, to which of them differs between processors; not to all of them."""


@pytest.fixture
def chat_with(tiny_base: Path, tmp_path: Path) -> Chat:
    """`chat_with("line", "line", options...)` runs the command on these lines of input."""
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{base: {tiny_base}, dtype: float32}}\nreply: {{max_tokens: 20}}\n")
    app = typer.Typer()
    app.command("chat")(as_command(chat))

    def run(*lines: str | bytes, options: tuple[str, ...] = ()) -> Result:
        text = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
        return CliRunner().invoke(app, ["--config", str(config), *options], input=text)

    return run


@pytest.fixture
def published(publish_tiny_adapter: PublishAdapter, tmp_path: Path) -> Path:
    return publish_tiny_adapter(tmp_path / "adapters" / "sample")


@pytest.mark.usefixtures("published")
def test_replies_to_a_line_and_speaks_unprompted_after_an_empty_one(chat_with: Chat) -> None:
    result = chat_with("/seed 4", "", "hello", "", "/quit", "never read")
    assert result.exit_code == 0, result.output
    assert "sample, adapter 0001. ENTER alone makes it speak; /help lists the commands." in result.stderr
    # What a random model says, if anything, differs between processors: three times it was asked, three times it spoke.
    spoken = sum(line.startswith("sample: ") for line in result.stdout.splitlines())
    assert spoken + result.stderr.splitlines().count("(sample says nothing this time)") >= 3
    assert not any(line.startswith("> ") for line in result.stdout.splitlines())


@pytest.mark.usefixtures("published")
def test_json_prints_the_conversation(chat_with: Chat) -> None:
    result = chat_with("/seed 4", *LINES, options=("--json",))
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["adapter"] == "0001"
    assert printed["tokens_per_second"] > 0
    speakers = [turn["speaker"] for turn in printed["turns"]]
    assert speakers[0] == "you"
    assert printed["turns"][0]["bubbles"][0] == "hello"
    assert "sample: " in result.stderr
    again = json.loads(chat_with("/seed 4", *LINES, options=("--json",)).stdout)
    assert again["turns"] == printed["turns"]
    assert any(turn["bubbles"] for turn in again["turns"] if turn["speaker"] == "me")


@pytest.mark.usefixtures("published")
def test_reset_clears_the_conversation(chat_with: Chat) -> None:
    printed = json.loads(chat_with("hello", "/reset", options=("--json",)).stdout)
    assert printed["turns"] == []


@pytest.mark.usefixtures("published")
def test_a_wrong_setting_is_refused_in_one_line(chat_with: Chat) -> None:
    result = chat_with("/temperature 0.5", "/temperature", "/top_k many", "/min_p 1", "/seed -1", "/wat", "/settings")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    for expected in (
        "temperature 0.5",
        "/top_k takes a whole number, 0 ≤ top_k",
        "/min_p takes a number, 0 ≤ min_p < 1",
        "/seed takes a whole number, or none for a fresh one each time",
        "/wat: no such command; /help lists them",
        "temperature 0.5 · top_p 0.95 · top_k 64 · min_p 0.02 · repetition_penalty 1.0 · max_tokens 20 · seed none",
    ):
        assert expected in lines
    assert lines.count("temperature 0.5") == 2


@pytest.mark.usefixtures("published")
def test_rare_settings_are_shown_once_they_are_set(chat_with: Chat) -> None:
    result = chat_with(
        "/dry_multiplier 0.8", "/presence_penalty 9", "/no_repeat_ngram 4", "hello", "/settings", "/help"
    )
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert "/presence_penalty takes a number, -2 ≤ presence_penalty ≤ 2" in lines
    assert any(line.endswith("seed none · no_repeat_ngram 4 · dry_multiplier 0.8") for line in lines)
    assert any("/typical_p" in line for line in lines)


def test_without_an_adapter_it_says_what_to_do(chat_with: Chat) -> None:
    result = chat_with("hello")
    assert result.exit_code == 2
    assert "no adapter yet; run `doppel train`" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_any_adapter_folder_can_be_tried(chat_with: Chat, publish_tiny_adapter: PublishAdapter, tmp_path: Path) -> None:
    for seed in range(2):
        folder = publish_tiny_adapter(tmp_path / "elsewhere", persona="maria", seed=seed)
    result = chat_with("hello", options=("--adapter", str(folder.parent / "0001")))
    assert result.exit_code == 0, result.output
    assert "maria, adapter 0001." in result.stderr
    result = chat_with("hello", options=("--adapter", str(tmp_path / "nowhere")))
    assert result.exit_code == 2
    assert "no such folder" in result.stderr


def test_a_damaged_adapter_is_one_line(chat_with: Chat, published: Path) -> None:
    (published / "habits.json").write_text("{}")
    result = chat_with("hello")
    assert result.exit_code == 1
    assert result.stderr.strip().endswith("habits.json is damaged (its digest differs)")


@pytest.mark.usefixtures("published")
def test_ctrl_c_stops_the_reply_and_the_chat_goes_on(chat_with: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    write = Screen.write

    def write_and_interrupt(screen: Screen, text: str) -> None:
        nonlocal writes
        write(screen, text)
        writes += 1
        if writes == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Screen, "write", write_and_interrupt)
    result = chat_with("/max_tokens 400", "/seed 1", "hello", "/max_tokens 5", "again", options=("--json",))
    assert result.exit_code == 0, result.output
    assert "(stopped)" in result.stderr
    turns = json.loads(result.stdout)["turns"]
    assert [turn["speaker"] for turn in turns] == ["you", "me", "you", "me"]
    assert 0 < len("".join(turns[1]["bubbles"])) < 30


@pytest.fixture
def screen() -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen("ann", out), out


def test_a_bubble_grows_on_one_line(screen: tuple[Screen, io.StringIO]) -> None:
    shown, out = screen
    for partial in ("h", "he", "hey"):
        shown.write(partial)
        assert out.getvalue() == f"ann: {partial}"
    shown.finish("hey you")
    shown.finish("two\nlines")
    assert out.getvalue() == "ann: hey you\nann: two\nlines\n"


def test_a_bubble_that_differs_from_what_was_shown_is_shown_again(screen: tuple[Screen, io.StringIO]) -> None:
    shown, out = screen
    shown.write("abc")
    shown.write("abX")
    shown.finish("abXY")
    assert out.getvalue() == "ann: abc\nabXY\n"


def test_control_characters_and_markup_in_a_reply_have_no_effect(screen: tuple[Screen, io.StringIO]) -> None:
    shown, out = screen
    shown.finish("\x1b[2Jgone\x07 [bold]not[/bold] :smile:")
    assert out.getvalue() == "ann: [2Jgone [bold]not[/bold] :smile:\n"


class ScriptedEngine:
    """An engine that always generates the same turn."""

    context_length = 4096

    def __init__(self, transcript: Transcript, *bubbles: str) -> None:
        self.transcript = transcript
        start = len(transcript.prompt(Header(), []))
        self._ids = transcript.encode(Header(), [Turn(ME, bubbles)]).ids[start:]

    def transcript_of(self, adapter: str | None) -> Transcript:
        return self.transcript

    async def generate(self, request: Request) -> AsyncGenerator[Token]:
        for token in self._ids:
            yield Token(token, -1.0)


@pytest.mark.parametrize("is_on", [True, False])
async def test_a_reply_ends_before_it_quotes_the_archive(
    is_on: bool, published: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    persona = msgspec.structs.replace(read_persona(published), guard=build_guard([[Turn("Ann", (SECRET,))]]))
    config = parse_config({"reply": {"guard": is_on}}, published / "config.yaml")
    engine = ScriptedEngine(Transcript(load_tokenizer(tiny_base)), "psst", SECRET, "never said")
    out = io.StringIO()
    terminal_chat = TerminalChat(config, persona, cast("Engine", engine), "name", out)
    await terminal_chat.reply()
    shown = " ".join(out.getvalue().split())
    assert "psst" in shown
    assert (SECRET in shown, "never said" in shown) == (not is_on, not is_on)
    reply = "\n".join(terminal_chat.turns[-1].bubbles)
    assert (persona.guard is not None and persona.guard.objects(reply) is None) == is_on
    assert ("(stopped: it quotes 8+ words" in capsys.readouterr().err) == is_on


class LimitedEngine(ScriptedEngine):
    """An engine without the setting `no_repeat_ngram`."""

    def unsupported(self, sampling: Sampling) -> str | None:
        return "Abacus does not support no_repeat_ngram" if sampling.no_repeat_ngram else None


def test_a_setting_that_the_engine_does_not_support_is_refused_by_its_command(published: Path, tiny_base: Path) -> None:
    config = parse_config({}, published / "config.yaml")
    engine = cast("Engine", LimitedEngine(Transcript(load_tokenizer(tiny_base)), "hi"))
    terminal_chat = TerminalChat(config, read_persona(published), engine, "name", io.StringIO())
    before = terminal_chat.sampling
    with pytest.raises(UserError, match="Abacus does not support no_repeat_ngram"):
        run_command("/no_repeat_ngram 3", terminal_chat)
    assert terminal_chat.sampling == before
    assert run_command("/no_repeat_ngram 0", terminal_chat) == "no_repeat_ngram 0"
    assert run_command("/temperature 0.5", terminal_chat) == "temperature 0.5"


def test_a_configured_setting_that_the_engine_does_not_support_is_refused_at_the_start(
    published: Path, tiny_base: Path
) -> None:
    config = parse_config({"reply": {"no_repeat_ngram": 3}}, published / "config.yaml")
    engine = cast("Engine", LimitedEngine(Transcript(load_tokenizer(tiny_base)), "hi"))
    with pytest.raises(UserError, match="Abacus does not support no_repeat_ngram"):
        TerminalChat(config, read_persona(published), engine, "name", io.StringIO())
