"""The page's section of config.yaml, and its address."""

from pydantic import Field

from doppel.plugins import Section


class WebSettings(Section):
    """Where the page is served: on this machine only, unless `host` is changed."""

    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65535)


def page_url(settings: WebSettings) -> str:
    """The page's address."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"
