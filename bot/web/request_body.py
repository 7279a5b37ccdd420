"""Reads a request's body up to a limit, for middleware that looks at it before the application does."""

from starlette.types import Message, Receive

_MAX_DISCARDED_BYTES = 8 * 1024 * 1024
"""What is read of a body that is too large. A client that is still sending would not see the response."""


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None if it is longer than `limit` bytes or the client has gone."""
    body = bytearray()
    length = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        length += len(part)
        if length <= limit:
            body += part
        if length > limit + _MAX_DISCARDED_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body) if length <= limit else None


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body again, in one piece, and then what the client does."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
