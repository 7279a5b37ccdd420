"""The web page: chat and blind quiz. It is a platform like the others, open to everybody who can load it:
this machine, or whoever has the password.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bot.web.settings import PASSWORD_VARIABLE, WebSettings, page_url
from doppel.plugins import Check, PlatformPlugin

if TYPE_CHECKING:
    from bot.web.platform import WebPlatform


def _open(settings: WebSettings, environ: Mapping[str, str]) -> "WebPlatform":
    from bot.web.platform import WebPlatform

    return WebPlatform(settings, environ)


def _checks(settings: WebSettings, environ: Mapping[str, str]) -> list[Check]:
    from bot.web.check import check_page

    return [check_page(settings, environ)]


PLUGIN = PlatformPlugin(
    name="web",
    settings=WebSettings,
    open=_open,
    optional_secrets=(PASSWORD_VARIABLE,),
    is_public=True,
    checks=_checks,
    page_url=page_url,
    noisy_loggers=("gradio", "uvicorn"),
)
