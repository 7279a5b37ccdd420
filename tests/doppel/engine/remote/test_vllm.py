"""The engine on a real vLLM: token ids both ways, adapters loaded and unloaded while it runs.

Needs vLLM: installed beside the tests, or its command named in DOPPEL_VLLM, as it wants an environment of its own.
"""

import asyncio
import importlib.util
import os
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import pytest

from doppel.adapters.versions import AdapterRefused
from doppel.config import parse_config
from doppel.engine import Request, Sampling, Token
from doppel.engine.registry import open_engine
from doppel.engine.remote.engine import OpenAIEngine
from doppel.transcript import Header, Turn
from tests.families import random_lora
from tests.processes import free_port

_UP = "Application startup complete"
_STARTING_SECONDS = 600

COMMAND = os.environ.get("DOPPEL_VLLM") or (shutil.which("vllm") if importlib.util.find_spec("vllm") else None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(COMMAND is None, reason="vLLM is not installed; name its command in DOPPEL_VLLM"),
]


@pytest.fixture(scope="module")
def url(bundled_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vLLM with the bundled base."""
    port = free_port()
    settings = ["--served-model-name", "base", "--max-model-len", "1024", "--dtype", "bfloat16", "--enforce-eager"]
    command = [str(COMMAND), "serve", str(bundled_base), "--port", str(port), "--host", "127.0.0.1", *settings]
    environment = {
        **os.environ,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = Log()
    process = subprocess.Popen(
        [*command, "--enable-lora", "--max-lora-rank", "16"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    assert process.stdout is not None
    reader = threading.Thread(target=log.read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        log.has_spoken.wait(_STARTING_SECONDS)
        assert log.is_up, f"vLLM does not start: {log.end}"
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)
        reader.join(60)


class Log:
    """What vLLM writes: read as it comes, so that it never waits for us, and we know when it is up."""

    def __init__(self) -> None:
        self.has_spoken = threading.Event()
        """It said that it is up, or it ended."""
        self.is_up = False
        self._lines: deque[str] = deque(maxlen=40)

    @property
    def end(self) -> str:
        """The last lines."""
        return "".join(self._lines)

    def read(self, lines: IO[bytes]) -> None:
        """Reads until it ends, and closes."""
        with lines:
            for line in lines:
                text = line.decode("utf-8", "replace")
                self._lines.append(text)
                if _UP in text:
                    self.is_up = True
                    self.has_spoken.set()
        self.has_spoken.set()


@pytest.fixture
async def engine(url: str, tmp_path: Path) -> AsyncIterator[OpenAIEngine]:
    config = parse_config(
        {"engine": {"backend": "openai", "url": url, "remote_model": "base"}}, tmp_path / "config.yaml"
    )
    engine = await asyncio.to_thread(open_engine, config, lambda line: None)
    assert isinstance(engine, OpenAIEngine)
    yield engine
    engine.close()


def ask(engine: OpenAIEngine, **options: object) -> Request:
    prompt = engine.transcript.prompt(Header(year="2018"), [Turn("Ramito", ("hello, how are you?",))])
    greedy = Sampling(temperature=0, max_tokens=16)
    return Request(**{"prompt": prompt, "sampling": greedy, "stop_ids": frozenset(), **options})


async def tokens(engine: OpenAIEngine, **options: object) -> list[Token]:
    return [token async for token in engine.generate(ask(engine, **options))]


async def test_ids_and_log_probabilities_come_back(engine: OpenAIEngine) -> None:
    found = await tokens(engine)
    assert len(found) == 16
    assert all(token.model_logprob is not None and token.model_logprob <= 0 for token in found)
    assert engine.context_length == 1024
    stop = found[4].id
    place = [token.id for token in found].index(stop)
    until = await tokens(engine, stop_ids=frozenset({stop}))
    assert [token.id for token in until] == [token.id for token in found[: place + 1]]


async def test_every_supported_setting_is_accepted(engine: OpenAIEngine) -> None:
    word = tuple(engine.transcript.safe_tokenizer.encode_text([" hello"], "\n")[0])
    sampling = Sampling(
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.2,
        logit_bias=((500, -5.0),),
        bad_words=(word,),
        seed=3,
        max_tokens=16,
    )
    first = await tokens(engine, sampling=sampling)
    assert [token.id for token in await tokens(engine, sampling=sampling)] == [token.id for token in first]


async def test_adapters_are_loaded_and_unloaded(engine: OpenAIEngine, bundled_base: Path, tmp_path: Path) -> None:
    lora = random_lora(bundled_base, tmp_path / "adapters")
    name = await engine.load_adapter(lora.folder)
    plain, own = await tokens(engine), await tokens(engine, adapter=name)
    assert [token.id for token in own] != [token.id for token in plain]
    await engine.drop_adapter(name)
    assert await engine.load_adapter(lora.folder) == name
    await engine.drop_adapter(name)


async def test_an_adapter_above_the_servers_rank_is_refused(
    engine: OpenAIEngine, bundled_base: Path, tmp_path: Path
) -> None:
    lora = random_lora(bundled_base, tmp_path / "adapters", r=32)
    with pytest.raises(AdapterRefused):
        await engine.load_adapter(lora.folder)
    assert len(await tokens(engine)) == 16
