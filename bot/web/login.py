"""The login in front of the pages: a password form, a signed cookie, and growing waits after wrong passwords."""

import hashlib
import hmac
from collections import OrderedDict
from datetime import timedelta
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address, ip_network
from math import ceil
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.clock import Clock
from bot.web.login_html import login_form
from bot.web.request_body import read_body
from doppel.i18n import tr

SESSION = timedelta(days=30)
"""How long a browser stays signed in."""

MAX_WAIT_SECONDS = 60.0
OPEN_PATHS = ("/healthz", "/readyz", "/metrics")
"""What monitoring may ask without a password; `/metrics` only from this machine."""

_LOGIN_PATH = "/login"
_PAGES = {"/": "./", "/quiz": "quiz/", "/quiz/": "quiz/"}
"""The pages, and where each lies as seen from the login's address."""

_MAX_FORM_BYTES = 4096
_MAX_ADDRESSES = 10_000
_FREE_FAILURES = 30
"""Wrong passwords of all networks together that make nobody else wait."""

_SECONDS_PER_FAILURE = 2.0
"""After those, all together may try once in this time."""


class Login:
    """Middleware that lets only signed-in browsers through.

    Args:
        app: the application behind it.
        password: not empty.
        clock: for the sessions' end and the waits.
    """

    def __init__(self, app: ASGIApp, password: str, clock: Clock) -> None:
        self._app = app
        self._password = password
        self._clock = clock
        # A slow derivation, so that a stolen cookie does not help to guess the password. A new password ends sessions.
        self._key = hashlib.scrypt(password.encode(), salt=b"doppel web session", n=2**14, r=8, p=1)
        # Browsers send a host's cookies to all its ports, so two daemons need two names.
        self._cookie = f"doppel-{self._sign('name')[:8]}"
        self._attempts = _Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif scope["path"] == _LOGIN_PATH and scope["method"] == "POST":
            await (await self._on_login(scope, receive))(scope, receive, send)
        elif scope["path"] == _LOGIN_PATH:
            await HTMLResponse(login_form())(scope, receive, send)
        elif self._is_signed_in(scope):
            await self._app(scope, receive, send)
        elif scope["path"] in _PAGES and scope["method"] in ("GET", "HEAD"):
            page = _PAGES[scope["path"]]
            action = "../login" if scope["path"] == "/quiz/" else "login"
            await HTMLResponse(login_form(action=action, page=page), 401)(scope, receive, send)
        else:
            await PlainTextResponse(f"{tr('sign in on the page first')}\n", 401)(scope, receive, send)

    async def _on_login(self, scope: Scope, receive: Receive) -> Response:
        fields = _parse_form(await read_body(receive, _MAX_FORM_BYTES))
        page = fields.get("page", "./")
        page = page if page in _PAGES.values() else "./"
        address = _network(scope)
        now = self._clock.monotonic()
        if wait := self._attempts.wait(address, now):
            seconds = ceil(wait)
            problem = tr("Too many attempts. Try again in {seconds} s.", seconds=seconds)
            return HTMLResponse(login_form(page=page, problem=problem), 429, {"Retry-After": str(seconds)})
        if not hmac.compare_digest(fields.get("password", "").strip().encode(), self._password.encode()):
            self._attempts.failed(address, now)
            return HTMLResponse(login_form(page=page, problem=tr("Wrong password.")), 401)
        self._attempts.succeeded(address)
        response = RedirectResponse(page, 303)
        response.set_cookie(
            self._cookie,
            self._new_session(),
            max_age=int(SESSION.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=scope["scheme"] == "https",
        )
        return response

    def _new_session(self) -> str:
        end = str(int((self._clock.now() + SESSION).timestamp()))
        return f"{end}.{self._sign(end)}"

    def _is_signed_in(self, scope: Scope) -> bool:
        try:
            cookie = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        end, _, signature = (cookie.value if cookie is not None else "").partition(".")
        is_ours = hmac.compare_digest(signature.encode(), self._sign(end).encode())
        return is_ours and int(end) > self._clock.now().timestamp()

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


class _Attempts:
    """Wrong passwords. Each one doubles the wait of its network; many from everywhere make all wait.

    The second rule is for attackers with many addresses, real or claimed in a header that a proxy passes on.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._level, self._level_at = 0.0, 0.0

    def wait(self, network: str, now: float) -> float:
        """Seconds until the network may try again; 0 if it may now."""
        _, free_at = self._failures.get(network, (0, now))
        return max(0.0, free_at - now, (self._level_now(now) - _FREE_FAILURES) * _SECONDS_PER_FAILURE)

    def failed(self, network: str, now: float) -> None:
        """A wrong password came from the network."""
        self._level, self._level_at = self._level_now(now) + 1, now
        count = self._failures.pop(network, (0, now))[0] + 1
        self._failures[network] = count, now + min(MAX_WAIT_SECONDS, 2.0 ** min(count - 1, 16))
        if len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def succeeded(self, network: str) -> None:
        """The right password came from the network."""
        self._failures.pop(network, None)

    def _level_now(self, now: float) -> float:
        """Failures of all networks, less one for every two seconds that have passed."""
        return max(0.0, self._level - (now - self._level_at) / _SECONDS_PER_FAILURE)


def _network(scope: Scope) -> str:
    """The client's address; of IPv6 the first half, since one machine has all of the other."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ip_address(host)
    except ValueError:
        return str(host)
    return str(address) if address.version == 4 else str(ip_network((address, 64), strict=False))


def _parse_form(body: bytes | None) -> dict[str, str]:
    """The fields of a form; empty if it is no form."""
    try:
        fields = parse_qs((body or b"").decode(), keep_blank_values=True, max_num_fields=4)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}
