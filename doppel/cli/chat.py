"""`doppel chat`: talk with the persona in the terminal."""

import asyncio
import sys
import time
from contextlib import aclosing
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console

from doppel.cli.app import Run
from doppel.cli.chat_commands import Quit, run_command
from doppel.config import Config
from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.terminal import is_interactive, prepare_input, print_status, printable, read_line

if TYPE_CHECKING:
    from doppel.engine import Engine, Sampling
    from doppel.persona import Persona
    from doppel.transcript import Turn


def chat(
    run: Run,
    *,
    adapter: Annotated[
        Path | None,
        typer.Option(help="Try this adapter, not the current one: a version's folder or a training's checkpoint."),
    ] = None,
) -> dict[str, Any] | None:
    """Talk with the persona in the terminal; ENTER alone makes it speak unprompted."""
    from doppel.persona import open_persona, read_persona

    if adapter is None:
        return _chat_with(run, open_persona(run.config.adapters_dir))
    from doppel.adapters.checkpoint import open_adapter

    with open_adapter(adapter, run.config) as opened:
        return _chat_with(run, read_persona(opened.folder, opened.version))


def _chat_with(run: Run, persona: "Persona") -> dict[str, Any]:
    config = run.config
    print_status(tr("Loading the base model …"))
    from doppel.engine.registry import open_engine

    engine = open_engine(config, print_status)
    try:
        with asyncio.Runner() as runner:
            name = runner.run(engine.load_adapter(persona.folder))
            terminal_chat = TerminalChat(config, persona, engine, name, sys.stderr if run.as_json else sys.stdout)
            return _read_and_reply(terminal_chat, runner, prompt=is_interactive() and not run.as_json)
    finally:
        engine.close()


class TerminalChat:
    """A conversation in the terminal: its turns so far, the sampling settings, and the screen that shows replies.

    Args:
        config: the configuration.
        persona: who replies.
        engine: generates the replies; the persona's adapter is loaded.
        name: the engine's name for that adapter.
        out: where replies are written while they are generated.

    Raises:
        UserError: the engine does not support a configured sampling setting.
    """

    def __init__(self, config: Config, persona: "Persona", engine: "Engine", name: str, out: TextIO) -> None:
        from doppel.transcript import pseudonym

        self.persona = persona
        self.sampling = persona.sampling(config.reply, engine.transcript_of(name))
        self.turns: list[Turn] = []
        self._config = config
        self._engine = engine
        if reason := self.unsupported(self.sampling):
            raise UserError(reason)
        self._name = name
        self._guard = persona.guard if config.reply.guard else None
        self._you = pseudonym("terminal", getuser())
        self._screen = Screen(persona.manifest.persona, out)
        self._tokens = 0
        self._seconds = 0.0

    def unsupported(self, sampling: "Sampling") -> str | None:
        """Why the engine cannot use these settings, in one line; None if it can."""
        from doppel.engine import unsupported

        return unsupported(self._engine, sampling)

    def add_message(self, text: str) -> None:
        """Adds a message of the user's: to their last turn if it has no reply yet, otherwise as a new turn."""
        from doppel.transcript import Turn

        earlier = self.turns.pop().bubbles if self.turns and self.turns[-1].speaker == self._you else ()
        self.turns.append(Turn(self._you, (*earlier, text)))

    async def reply(self) -> None:
        """Generates the persona's next turn and shows it. When cancelled, the text shown so far is kept as the turn.

        Text that the guard refuses is not shown: the reply ends before it.

        Raises:
            EngineError: the engine failed.
        """
        from doppel.persona import GeneratedBubble, recent_turns, speak
        from doppel.transcript import ME, Turn

        settings = self._config.reply
        turns = recent_turns(self.turns, settings.history)
        header = self.persona.header(
            kind="dm",
            now=datetime.now(UTC),
            zone=self._config.zone,
            platform="terminal",
            contact=self._you,
            turns=turns,
        )
        reply = speak(
            self._engine,
            self._name,
            header,
            turns,
            self.sampling,
            max_bubbles=settings.max_bubbles,
            candidates=settings.candidates,
        )
        bubbles: list[str] = []
        partial = ""
        objection = None
        tokens = 0
        started = time.perf_counter()
        try:
            async with aclosing(reply) as events:
                async for event in events:
                    tokens = event.tokens
                    objection = self._objection([*bubbles, event.text])
                    if objection is not None:
                        break
                    if isinstance(event, GeneratedBubble):
                        bubbles.append(event.text)
                        partial = ""
                        self._screen.finish(event.text)
                    else:
                        partial = event.text
                        self._screen.write(partial)
                    await asyncio.sleep(0)  # Ctrl-C is noticed here, also when all events are waiting already
            if objection is None and not bubbles:
                print_status(tr("({persona} says nothing this time)", persona=self.persona.manifest.persona))
        finally:
            self._seconds += time.perf_counter() - started
            self._tokens += tokens
            if partial:
                self._screen.finish(partial)
                bubbles.append(partial)
            if bubbles:
                self.turns.append(Turn(ME, tuple(bubbles)))
            if objection is not None:
                print_status(tr("(stopped: {reason})", reason=objection))

    def _objection(self, bubbles: list[str]) -> str | None:
        """Why the guard refuses these bubbles, in one line; None if it does not, or is off."""
        return None if self._guard is None else self._guard.objects("\n".join(bubbles))

    def summary(self) -> dict[str, Any]:
        """The conversation for `--json`."""
        turns = [{"speaker": "me" if turn.is_mine else "you", "bubbles": turn.bubbles} for turn in self.turns]
        return {
            "adapter": self.persona.manifest.version,
            "turns": turns,
            "tokens_per_second": round(self._tokens / self._seconds, 1) if self._tokens else None,
        }


class Screen:
    """Shows bubbles while they are generated, each on a new line that begins with the persona's name."""

    def __init__(self, name: str, out: TextIO) -> None:
        self._name = name
        self._console = Console(file=out, highlight=False)
        self._shown: str | None = None

    def write(self, text: str) -> None:
        """Shows the current bubble, of which `text` is all that is known so far."""
        text = printable(text)
        if self._shown is None:
            self._console.out(f"{self._name}: ", style="bold cyan", end="")
            self._shown = ""
        if text.startswith(self._shown):  # otherwise `finish` shows the bubble again
            self._console.out(text[len(self._shown) :], end="")
            self._shown = text

    def finish(self, text: str) -> None:
        """Shows the complete bubble and ends its line."""
        self.write(text)
        if self._shown != printable(text):
            self._console.out("")
            self._console.out(printable(text), end="")
        self._console.out("")
        self._shown = None


def _read_and_reply(terminal_chat: TerminalChat, runner: asyncio.Runner, *, prompt: bool) -> dict[str, Any]:
    """Replies to lines of input until its end, Ctrl-C at the prompt or /quit; returns the conversation."""
    persona = terminal_chat.persona.manifest
    print_status(
        tr(
            "{persona}, adapter {version}. ENTER alone makes it speak; /help lists the commands.",
            persona=persona.persona,
            version=persona.version,
        )
    )
    prepare_input(prompt)
    while (line := read_line("> " if prompt else "")) is not None:
        text = line.strip()
        if text.startswith("/"):
            try:
                print_status(run_command(text, terminal_chat))
            except UserError as error:
                print_status(str(error))
            except Quit:
                break
            continue
        if text:
            terminal_chat.add_message(text)
        try:
            runner.run(terminal_chat.reply())
        except KeyboardInterrupt:
            print_status(tr("(stopped)"))
        except DoppelError as error:
            print_status(str(error))
    return terminal_chat.summary()
