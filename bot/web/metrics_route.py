"""`/metrics`, for programs on this machine only: others could read from it when somebody writes."""

from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from doppel.i18n import tr

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus's text format, as every version reads it."""

_ADDED_BY_PROXIES = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


async def metrics_response(request: Request, render: Callable[[], Awaitable[bytes]]) -> Response:
    """The metrics; 404 to other machines, also to those behind a proxy on this one that says so."""
    if not _is_local(request):
        return PlainTextResponse(f"{tr('not found')}\n", 404)
    return Response(await render(), media_type=CONTENT_TYPE)


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _ADDED_BY_PROXIES):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:  # a socket for both families
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
