"""`doppel chat`: talk with the persona in the terminal. Knows lines and keys; the speaking is `persona`'s."""

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
from doppel.cli.chat_commands import Leave, obey
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
        return _serve(run, open_persona(run.config.adapters_dir))
    from doppel.adapters.checkpoint import open_adapter

    with open_adapter(adapter, run.config) as opened:
        return _serve(run, read_persona(opened.folder, opened.version))


def _serve(run: Run, persona: "Persona") -> dict[str, Any]:
    config = run.config
    print_status(tr("Loading the base model …"))
    from doppel.engine.registry import open_engine

    engine = open_engine(config, print_status)
    try:
        with asyncio.Runner() as runner:
            name = runner.run(engine.load_adapter(persona.folder))
            conversation = Conversation(config, persona, engine, name, sys.stderr if run.as_json else sys.stdout)
            return _converse(conversation, runner, prompt=is_interactive() and not run.as_json)
    finally:
        engine.close()


class Conversation:
    """What was said, how it is sampled, and where the words appear.

    Args:
        name: the engine's name for the persona's adapter.
        out: where the persona's words go; they appear as they are generated.
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
        """Why the engine cannot sample like this, in one line; None when it can."""
        from doppel.engine import unsupported

        return unsupported(self._engine, sampling)

    def hear(self, text: str) -> None:
        """Takes what the user wrote; an unanswered turn of theirs goes on."""
        from doppel.transcript import Turn

        said = self.turns.pop().bubbles if self.turns and self.turns[-1].speaker == self._you else ()
        self.turns.append(Turn(self._you, (*said, text)))

    async def speak(self) -> None:
        """Says the persona's next turn on the screen. What appeared counts as said even when cancelled.

        It stops before a word that the guard objects to: what is on the screen cannot be taken back.

        Raises:
            EngineError: the engine failed.
        """
        from doppel.persona import GeneratedBubble, recent_turns, speak
        from doppel.transcript import ME, Turn

        reply = self._config.reply
        header = self.persona.header(
            kind="dm", now=datetime.now(UTC), zone=self._config.zone, platform="terminal", contact=self._you
        )
        words = speak(
            self._engine,
            self._name,
            header,
            recent_turns(self.turns, reply.history),
            self.sampling,
            max_bubbles=reply.max_bubbles,
            candidates=reply.candidates,
        )
        bubbles: list[str] = []
        partial = ""
        objection = None
        tokens = 0
        started = time.perf_counter()
        try:
            async with aclosing(words) as events:
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
        """Why these must not be said, if the guard is on and has something against them."""
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
    """Shows bubbles as they grow, each on a line of its own after the persona's name."""

    def __init__(self, name: str, out: TextIO) -> None:
        self._name = name
        self._console = Console(file=out, highlight=False)
        self._shown: str | None = None

    def write(self, text: str) -> None:
        """Shows more of the bubble being written."""
        text = printable(text)
        if self._shown is None:
            self._console.out(f"{self._name}: ", style="bold cyan", end="")
            self._shown = ""
        if text.startswith(self._shown):  # otherwise the end of the bubble sets it right
            self._console.out(text[len(self._shown) :], end="")
            self._shown = text

    def finish(self, text: str) -> None:
        """Shows the whole bubble and ends its line."""
        self.write(text)
        if self._shown != printable(text):
            self._console.out("")
            self._console.out(printable(text), end="")
        self._console.out("")
        self._shown = None


def _converse(conversation: Conversation, runner: asyncio.Runner, *, prompt: bool) -> dict[str, Any]:
    """Lines in, replies out, until the end of input, Ctrl-C at the prompt or /quit."""
    persona = conversation.persona.manifest
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
                print_status(obey(text, conversation))
            except UserError as error:
                print_status(str(error))
            except Leave:
                break
            continue
        if text:
            conversation.hear(text)
        try:
            runner.run(conversation.speak())
        except KeyboardInterrupt:
            print_status(tr("(stopped)"))
        except DoppelError as error:
            print_status(str(error))
    return conversation.summary()
