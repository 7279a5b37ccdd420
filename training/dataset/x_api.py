"""A client for the X API that fetches posts by id, as lines of `parents.jsonl`.

It respects the rate limits in the response headers and translates errors for the user.
"""

import html
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import httpx
import msgspec

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from doppel.secrets import X_TOKEN
from training.archives.formats.archive_records import as_object
from training.archives.parents import TWITTER

API_URL = "https://api.x.com"
BATCH_SIZE = 100
"""Posts per request."""

_QUERY = {
    "expansions": "author_id",
    "tweet.fields": "created_at,text,note_tweet,conversation_id,referenced_tweets,entities",
    "user.fields": "username",
}
_GONE = ("resource-not-found", "not-authorized-for-resource", "disallowed-resource")
_OWN_LINKS = ("https://twitter.com/", "https://x.com/")
_MAX_ATTEMPTS = 5
_MAX_WAIT = 16 * 60.0
"""Rate limits reset every 15 minutes; a longer wait means that the monthly quota is used up."""


class PostBatch(msgspec.Struct, frozen=True):
    """The result of one request: lines for the file, and how many are posts; the others are unavailable posts."""

    lines: list[dict[str, Any]]
    found: int


class XApi:
    """Fetches one batch after another, within the rate limits.

    Args:
        base_url: of the API.
        token: the owner's bearer token.
        on_progress: receives status lines.
        clock: returns seconds since 1970.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        on_progress: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client = httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        self._on_progress = on_progress
        self._clock = clock
        self._sleep = sleep
        self._next_request_at = 0.0

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def fetch_posts(self, ids: Sequence[str], own: AbstractSet[str] = frozenset()) -> PostBatch:
        """Fetches posts by id. Posts that are neither returned nor unavailable are left out.

        Args:
            ids: at most `BATCH_SIZE`.
            own: the owner's accounts. Their own posts that no archive contains count as unavailable.

        Raises:
            UserError: the token is not accepted.
            DoppelError: X cannot be reached, or the quota is used up.
        """
        content = self._request(ids)
        includes = as_object(content.get("includes"))
        names = {str(user.get("id")): str(user.get("username") or "") for user in _objects(includes.get("users"))}
        returned = [_parent(post, names) for post in _objects(content.get("data")) if str(post.get("id")) in ids]
        posts = [post for post in returned if post["author"] not in own]
        gone = {post["id"]: "your own" for post in returned if post["author"] in own}
        for error in _objects(content.get("errors")):
            post_id = str(error.get("resource_id") or error.get("value"))
            is_gone = str(error.get("type")).rpartition("/")[2] in _GONE
            if post_id in ids and is_gone and error.get("resource_type", "tweet") == "tweet":
                gone.setdefault(post_id, str(error.get("title") or "gone"))
        for post in posts:
            gone.pop(post["id"], None)
        lines = [{"id": post_id, "platform": TWITTER, "gone": reason} for post_id, reason in gone.items()]
        return PostBatch([*posts, *lines], len(posts))

    def _request(self, ids: Sequence[str]) -> dict[str, Any]:
        problem = ""
        for attempt in range(_MAX_ATTEMPTS):
            if attempt and not self._next_request_at:
                self._sleep(2.0**attempt)
            self._wait(self._next_request_at - self._clock())
            self._next_request_at = 0.0
            try:
                response = self._client.get("/2/tweets", params={"ids": ",".join(ids), **_QUERY})
                self._note_limit(response, attempt)
                if response.status_code == 200:
                    return _json_object(response)
            except (httpx.RequestError, ValueError) as error:
                problem = str(error) or type(error).__name__
                continue
            _raise_if_final(response)
            problem = f"HTTP {response.status_code}"
        raise DoppelError(
            tr("X does not respond ({problem}). The posts fetched so far are saved; try again later", problem=problem)
        )

    def _note_limit(self, response: httpx.Response, attempt: int) -> None:
        """Sets the time of the next request from the rate limit headers."""
        is_refused = response.status_code == 429
        if not is_refused and response.headers.get("x-rate-limit-remaining") != "0":
            return
        try:
            self._next_request_at = float(int(response.headers["x-rate-limit-reset"])) + 1  # clocks differ a little
        except (KeyError, ValueError):
            self._next_request_at = self._clock() + 60.0 * 2**attempt if is_refused else 0.0

    def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if seconds > _MAX_WAIT:
            raise DoppelError(
                tr(
                    "X allows no more requests for {hours} hours. The posts fetched so far are saved; try again then",
                    hours=f"{seconds / 3600:.1f}",
                )
            )
        self._on_progress(tr("Rate limit of X reached, waiting {seconds} s", seconds=f"{seconds:.0f}"))
        self._sleep(seconds)


def _raise_if_final(response: httpx.Response) -> None:
    """Raises for errors that retrying does not solve."""
    detail = _detail(response)
    if response.status_code == 401:
        raise UserError(tr("X rejects the token in {variable} (401). Copy it again", variable=X_TOKEN))
    if response.status_code == 403:
        raise UserError(
            tr(
                "the app of the token in {variable} may not read posts (403: {detail}). Check its access on "
                "developer.x.com",
                variable=X_TOKEN,
                detail=detail,
            )
        )
    is_over_quota = response.status_code == 429 and ("usage-capped" in response.text or "UsageCap" in response.text)
    if response.status_code == 402 or is_over_quota:
        raise DoppelError(
            tr(
                "the quota of your X account is used up ({status}: {detail}). The posts fetched so far are saved",
                status=response.status_code,
                detail=detail,
            )
        )
    if response.status_code != 429 and response.status_code < 500:
        raise DoppelError(
            tr("X rejects the request ({status}: {detail})", status=response.status_code, detail=detail or "?")
        )


def _detail(response: httpx.Response) -> str:
    try:
        content = as_object(response.json())
    except ValueError:
        content = {}
    text = str(content.get("detail") or content.get("title") or response.reason_phrase)
    return " ".join(text.split())[:200]


def _json_object(response: httpx.Response) -> dict[str, Any]:
    """The response's content. Raises ValueError if it is none of the API's, such as the login page of a network."""
    content = response.json()
    if not isinstance(content, dict) or not ("data" in content or "errors" in content):
        raise ValueError(tr("unexpected response"))
    return content


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _parent(post: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The line for a post of the API; its text stays HTML-escaped, its links are expanded."""
    author = str(post.get("author_id") or "")
    note = as_object(post.get("note_tweet"))
    source = note if note.get("text") else post
    parent: dict[str, Any] = {
        "id": str(post["id"]),
        "platform": TWITTER,
        "author": author or "unknown",
        "name": names.get(author, ""),
        "text": _expanded_text(source),
        "created_at": post.get("created_at"),
    }
    replied_to = [tweet for tweet in _objects(post.get("referenced_tweets")) if tweet.get("type") == "replied_to"]
    if replied_to and replied_to[0].get("id"):
        parent["reply_to"] = str(replied_to[0]["id"])
    return parent


def _expanded_text(post: Any) -> str:
    """The text with its links expanded, and without links to its own media and to the quoted post."""
    text = str(post.get("text") or "")
    for url in _objects(as_object(post.get("entities")).get("urls")):
        full = str(url.get("expanded_url") or "")
        is_attached = bool(url.get("media_key")) or ("/status/" in full and full.startswith(_OWN_LINKS))
        if short := str(url.get("url") or ""):
            text = text.replace(short, "" if is_attached else html.escape(full, quote=False) or short)
    return text.strip()
