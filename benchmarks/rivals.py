"""What `serve.py` compares the engine with: plain `generate`, llama.cpp without us, and a vLLM of its own.

Each takes prompts that are asked at the same moment, and says what came of it. Knows nothing of goals.
"""

import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from doppel.engine import Sampling
from doppel.engine.llamacpp.engine import LlamaCppInstance
from tests.processes import free_port

Figures = dict[str, float]
_UP = "Application startup complete"
_STARTING_SECONDS = 600


def figures(chats: int, tokens: int, seconds: float, first: float) -> Figures:
    """Tokens a second of all chats together, and the wait for the first in seconds."""
    return {"tokens_per_second": chats * tokens / seconds, "first_token": first}


class Generate:
    """The model as PEFT loads it, and `generate` of transformers, which gets all chats as one padded batch.

    Args:
        model: the base, not yet touched.
        adapter: its folder.
        tokens: of each reply.
    """

    def __init__(self, model: PreTrainedModel, adapter: Path, tokens: int) -> None:
        self._model = PeftModel.from_pretrained(model, adapter).eval()
        self._tokens = tokens

    def together(self, prompts: Sequence[list[int]]) -> Figures:
        """Replies to these prompts."""
        began = time.perf_counter()
        longest = max(map(len, prompts))
        rows = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
        seen = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        streamer = _Times()
        sampling = Sampling()
        with torch.inference_mode():
            self._model.generate(
                input_ids=torch.tensor(rows, device=self._model.device),
                attention_mask=torch.tensor(seen, device=self._model.device),
                do_sample=True,
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                max_new_tokens=self._tokens,
                eos_token_id=None,
                min_new_tokens=self._tokens,
                pad_token_id=0,
                streamer=streamer,
            )
        seconds = time.perf_counter() - began
        return figures(len(prompts), self._tokens, seconds, streamer.times[1] - began)  # the prompt is put first


class _Times(BaseStreamer):
    """When tokens came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to tell."""


class RawLlamaCpp:
    """llama.cpp with the parameters that the engine gives it, asked without the engine and without HTTP.

    Args:
        instance: with the adapter.
        tokens: of each reply.
    """

    def __init__(self, instance: LlamaCppInstance, tokens: int) -> None:
        self._instance = instance
        self._tokens = tokens

    def together(self, prompts: Sequence[list[int]]) -> Figures:
        """Replies to these prompts."""
        began = time.perf_counter()
        with ThreadPoolExecutor(len(prompts)) as pool:
            first = list(pool.map(self._ask, prompts))
        seconds = time.perf_counter() - began
        return figures(len(prompts), self._tokens, seconds, statistics.median(first) - began)

    def _ask(self, prompt: list[int]) -> float:
        """When the first token came."""
        times: list[float] = []
        sampling = Sampling()
        body = {
            "prompt": prompt,
            "max_tokens": self._tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "ignore_eos": True,
            "stream": True,
            "cache_prompt": True,
        }
        self._instance._server.handle_completions(body, lambda _: times.append(time.perf_counter()))
        return times[0]


class Vllm:
    """A vLLM server of its own process, as the engine `openai` asks it; `with` waits until it is up.

    Args:
        command: vLLM's.
        base: the prepared base.
        dtype: to compute in.
    """

    def __init__(self, command: str, base: Path, dtype: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        self.name = f"base-{secrets.token_hex(4)}"
        settings = ["--served-model-name", self.name, "--max-model-len", "2048", "--dtype", dtype, "--enforce-eager"]
        self._command = [
            *(command, "serve", str(base), "--port", str(port), "--host", "127.0.0.1", *settings),
            *("--enable-lora", "--max-lora-rank", "16"),
        ]
        self._is_up = threading.Event()
        self._lines: deque[str] = deque(maxlen=30)

    def __enter__(self) -> "Vllm":
        environment = {
            **os.environ,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._is_up.wait(_STARTING_SECONDS)
        if self._process.poll() is not None or not self._is_up.is_set():
            self.__exit__(None, None, None)
            sys.exit("vLLM does not start:\n" + "".join(self._lines))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _read(self) -> None:
        """Reads what it writes, so that it never waits for us."""
        output: Any = self._process.stdout
        for line in output:
            self._lines.append(line.decode("utf-8", "replace"))
            if _UP in self._lines[-1]:
                self._is_up.set()
        self._is_up.set()  # it ended
