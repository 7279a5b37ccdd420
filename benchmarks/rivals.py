"""What `serve.py` compares the engines with: transformers' `generate`, llama.cpp called directly, and a vLLM server."""

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
_READY_LINE = "Application startup complete"
_START_TIMEOUT = 600  # seconds


def speed_figures(chats: int, tokens: float, seconds: float, first_token: float) -> Figures:
    """Tokens per second of all chats together, and the time to the first token in seconds.

    Args:
        chats: their number.
        tokens: of each reply, on average.
        seconds: until all replies were complete.
        first_token: seconds to the first token.
    """
    return {"tokens_per_second": chats * tokens / seconds, "first_token": first_token}


class Generate:
    """transformers' `generate` on a model with a PEFT adapter; all chats are one padded batch.

    Args:
        model: the base, without adapters.
        adapter: the adapter's folder.
        tokens: number of tokens of each reply.
    """

    def __init__(self, model: PreTrainedModel, adapter: Path, tokens: int) -> None:
        self._model = PeftModel.from_pretrained(model, adapter).eval()
        self._tokens = tokens

    def reply_to_all(self, prompts: Sequence[list[int]]) -> Figures:
        """Replies to all prompts at the same time and returns the speed."""
        started = time.perf_counter()
        longest = max(map(len, prompts))
        rows = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        streamer = _TokenTimes()
        sampling = Sampling()
        with torch.inference_mode():
            self._model.generate(
                input_ids=torch.tensor(rows, device=self._model.device),
                attention_mask=torch.tensor(mask, device=self._model.device),
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
        seconds = time.perf_counter() - started
        return speed_figures(len(prompts), self._tokens, seconds, streamer.times[1] - started)


class _TokenTimes(BaseStreamer):
    """Records the time of every call of `put`: one for the prompt, then one per step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Required by the base class; there is nothing to flush."""


class RawLlamaCpp:
    """llama.cpp with the parameters that the engine `llamacpp` uses, called directly.

    Args:
        instance: a running llama.cpp with the adapter.
        tokens: number of tokens of each reply.
    """

    def __init__(self, instance: LlamaCppInstance, tokens: int) -> None:
        self._instance = instance
        self._tokens = tokens

    def reply_to_all(self, prompts: Sequence[list[int]]) -> Figures:
        """Replies to all prompts at the same time and returns the speed."""
        started = time.perf_counter()
        with ThreadPoolExecutor(len(prompts)) as pool:
            first_times = list(pool.map(self._reply, prompts))
        seconds = time.perf_counter() - started
        return speed_figures(len(prompts), self._tokens, seconds, statistics.median(first_times) - started)

    def _reply(self, prompt: list[int]) -> float:
        """Generates a reply; returns the time of its first token."""
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
    """A vLLM server in a process of its own, for the engine `openai`; runs within a `with` block.

    Args:
        command: the command that starts vLLM.
        base: folder of the prepared base.
        dtype: dtype to compute in.
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
        self._is_ready = threading.Event()
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
        self._is_ready.wait(_START_TIMEOUT)
        if self._process.poll() is not None or not self._is_ready.is_set():
            self.__exit__(None, None, None)
            sys.exit("vLLM does not start:\n" + "".join(self._lines))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _read(self) -> None:
        """Reads the output, as a process with a full pipe would block."""
        output: Any = self._process.stdout
        for line in output:
            self._lines.append(line.decode("utf-8", "replace"))
            if _READY_LINE in self._lines[-1]:
                self._is_ready.set()
        self._is_ready.set()  # it ended: `__enter__` need not wait for the timeout
