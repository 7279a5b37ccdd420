"""A server with OpenAI's completions protocol, in the test's own event loop, that answers and fails as told."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class CompletionsServer:
    """Streams `reply` token by token.

    Attributes:
        reply: token ids, or texts, that each completion streams.
        failures: what the next completions do instead: a status, `cut` (after two tokens), `garbage`, or `error`.
        requests: bodies of the completions so far; `asked` is set by the first, `cancelled` by one that is not let end.
        loaded: adapters by name, and where they lie.
    """

    def __init__(self, owner: str = "vllm", *, model: str = "base", tokens: Sequence[int] | None = None) -> None:
        self.owner = owner
        self.model = model
        self.tokens = tokens
        self.reply: list[Any] = [40, 41, 42]
        self.finish = "length"
        self.failures: list[int | str] = []
        self.headers: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.loaded: dict[str, str] = {}
        self.loads_adapters = True
        self.refuses_adapters = False
        self.loads = 0
        self.hold: Any = None
        """An event that completions wait for before they say anything."""
        self.requested, self.cancelled = asyncio.Event(), asyncio.Event()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["CompletionsServer"]:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/completions", self._complete)
        for prefix in ("/v1", ""):
            app.router.add_post(f"{prefix}/load_lora_adapter", self._load)
            app.router.add_post(f"{prefix}/unload_lora_adapter", self._unload)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        names = [self.model, *self.loaded]
        entries = [{"id": name, "object": "model", "owned_by": self.owner, "max_model_len": 300} for name in names]
        return web.json_response({"object": "list", "data": entries})

    async def _tokenize(self, _: web.Request) -> web.Response:
        if self.tokens is None:
            return web.json_response({"error": "no"}, status=404)
        return web.json_response({"tokens": list(self.tokens)})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.loads += 1
        if self.refuses_adapters:
            return web.json_response({"error": {"message": "LoRA rank 32 is greater"}}, status=500)
        if not self.loads_adapters:
            return web.json_response({"detail": "Not Found"}, status=404)
        if body["lora_name"] in self.loaded:
            return web.json_response({"error": {"message": f"{body['lora_name']} has already been loaded"}}, status=400)
        self.loaded[body["lora_name"]] = body["lora_path"]
        return web.Response(text=f"Success: LoRA adapter '{body['lora_name']}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        self.loaded.pop((await request.json())["lora_name"])
        return web.Response(text="Success")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.requested.set()
        self.keys.append(request.headers.get("Authorization"))
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, int):
            answer = {"error": {"message": f"failure {failure}\nand more", "code": failure}}
            return web.json_response(answer, status=failure, headers=self.headers)
        models = (self.model, *self.loaded, *(f"{self.model}:{name}" for name in self.loaded))
        if body["model"] not in models:
            return web.json_response({"error": {"message": "The model does not exist."}}, status=404)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if not body.get("stream"):
                return web.json_response({"choices": [{"text": "a"}], "usage": {"prompt_tokens": len(body["prompt"])}})
            return await self._stream(request, body, failure)
        except BaseException:
            self.cancelled.set()
            raise

    async def _stream(self, request: web.Request, body: dict[str, Any], failure: int | str | None) -> Any:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if failure == "garbage":
            await response.write(b"data: {nonsense\n\n")
        if failure == "error":
            await response.write(b'data: {"error": {"message": "out of memory", "code": 500}}\n\n')
        reply = self.reply[: body["max_tokens"]]
        for place, token in enumerate(reply):
            if failure == "cut" and place == 2:
                request.transport.close()
                return response
            await response.write(b"data: " + json.dumps({"choices": [self._choice(token)]}).encode() + b"\n\n")
        last = {"choices": [{"index": 0, "text": "", "finish_reason": self.finish}]}
        await response.write(b": a comment\n\ndata: " + json.dumps(last).encode() + b"\n\n")
        await response.write(b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\ndata: [DONE]\n\n')
        return response

    def _choice(self, token: Any) -> dict[str, Any]:
        if isinstance(token, str):
            return {"index": 0, "text": token, "finish_reason": None}
        logprobs = {"token_logprobs": [-0.5], "tokens": [f"token_id:{token}"]}
        return {"index": 0, "text": "x", "token_ids": [token], "logprobs": logprobs, "finish_reason": None}
