"""Whether the page can be served, for `doppel doctor`."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket

from bot.web.settings import WebSettings, find_exposure, page_url, read_password
from doppel.errors import UserError
from doppel.i18n import tr
from doppel.plugins import Check


def check_page(settings: WebSettings, environ: Mapping[str, str]) -> Check:
    """Whether only those may use the page who should, and its port is free, or held by a running doppel."""
    if not settings.enabled:
        hint = tr("{name} is off: {name}.enabled is false", name="web")
        return Check(name="page", ok=True, hint=hint, level="optional")
    try:
        problem = find_exposure(settings, read_password(environ))
    except UserError as error:
        problem = str(error)
    if problem is not None:
        return Check(name="page", ok=False, hint=problem)
    host, port, url = settings.host, settings.port, page_url(settings)
    try:
        with closing(socket(AF_INET6 if ":" in host else AF_INET, SOCK_STREAM)) as listener:
            listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        if _is_doppel(url):
            return Check(name="page", ok=True, hint=tr("doppel is running: {url}", url=url))
        hint = tr(
            "cannot listen on {host}:{port} ({error}); set another web.port",
            host=host,
            port=port,
            error=error.strerror,
        )
        return Check(name="page", ok=False, hint=hint)
    return Check(name="page", ok=True, hint=url)


def _is_doppel(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:  # noqa: S310 - http, as built above
            return bool(answer.read(16) == b"alive\n")
    except (OSError, ValueError, urllib.error.URLError):
        return False
