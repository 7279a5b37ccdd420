"""The page's section of config.yaml, its address, its password, and who may reach it."""

import re
from collections.abc import Mapping
from ipaddress import ip_address

from pydantic import Field, field_validator

from doppel.i18n import tr
from doppel.plugins import Section
from doppel.secrets import read_secret

PASSWORD_VARIABLE = "DOPPEL_WEB_PASSWORD"  # noqa: S105 - the variable's name
_MIN_PASSWORD_LENGTH = 8
_HOST_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")


class WebSettings(Section):
    """Where the page is served: on this machine only, unless `host` or `allowed_hosts` is changed.

    `allowed_hosts`: names under which the page may be opened besides its address, such as that of a reverse proxy.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = ()

    @field_validator("allowed_hosts")
    @classmethod
    def _plain_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.lower() for name in value)
        if not all(_HOST_NAME.fullmatch(name) for name in names):
            raise ValueError(tr("write names like chat.example.org, without http:// and port"))
        return names


def page_url(settings: WebSettings) -> str:
    """The page's address."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def read_password(environ: Mapping[str, str]) -> str:
    """The page's password; empty when it has none. Raises UserError when its file cannot be used."""
    return read_secret(PASSWORD_VARIABLE, environ)


def find_exposure(settings: WebSettings, password: str) -> str | None:
    """Why the page must not be served like this, in one line; None if only this machine or a password opens it."""
    values = {"variable": PASSWORD_VARIABLE}
    if len(password) >= _MIN_PASSWORD_LENGTH or all(map(is_loopback, (settings.host, *settings.allowed_hosts))):
        return None
    if password:
        return tr(
            "the password in {variable} is too short for a page that others can open; use at least {count} characters",
            count=_MIN_PASSWORD_LENGTH,
            **values,
        )
    if not is_loopback(settings.host):
        return tr(
            "web.host is {host}, so others could use the page; set a password in {variable}, or web.host to 127.0.0.1",
            host=settings.host,
            **values,
        )
    return tr(
        "web.allowed_hosts has {host}, so others could use the page; set a password in {variable}, "
        "or empty web.allowed_hosts",
        host=next(name for name in settings.allowed_hosts if not is_loopback(name)),
        **values,
    )


def is_loopback(host: str) -> bool:
    """Whether a name or an address, without port and brackets, means this machine whoever resolves it."""
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Whether it is an IP address and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
