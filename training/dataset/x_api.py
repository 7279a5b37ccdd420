"""X's API, as far as it gives posts by their ids: what to ask, how fast, and what its refusals mean.

Keeps to the limits that X tells in its headers, and gives posts as lines of `parents.jsonl`. Keeps no file.
"""

import html
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import httpx
import msgspec

from doppel.errors import DoppelError, UserError
from doppel.i18n import tr
from training.archives.formats.archive_records import as_object
from training.archives.parents import TWITTER

TOKEN = "X_BEARER_TOKEN"  # noqa: S105 the name of the variable
API = "https://api.x.com"
BATCH = 100
"""Posts that X gives for one request."""

_QUERY = {
    "expansions": "author_id",
    "tweet.fields": "created_at,text,note_tweet,conversation_id,referenced_tweets,entities",
    "user.fields": "username",
}
_GONE = ("resource-not-found", "not-authorized-for-resource", "disallowed-resource")
_OWN_LINKS = ("https://twitter.com/", "https://x.com/")
_TRIES = 5
_LONGEST_WAIT = 16 * 60.0
"""X counts requests in windows of 15 minutes; who is to wait for longer has used up a month."""


class Page(msgspec.Struct, frozen=True):
    """The lines for one answer, and how many of them are posts; the others say what is gone."""

    lines: list[dict[str, Any]]
    found: int


class Api:
    """Asks for one batch after another, no faster than X wants."""

    def __init__(
        self,
        base: str,
        token: str,
        told: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client = httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        self._told = told
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def page(self, ids: Sequence[str], own: AbstractSet[str] = frozenset()) -> Page:
        """The posts of one batch; those neither given nor gone are left for another time.

        Args:
            ids: which posts, a `BATCH` at most.
            own: the owner's accounts. What they wrote and an archive lacks is nobody else's, so it counts as gone.

        Raises:
            UserError: X does not take the token.
            DoppelError: X cannot be reached, or gives no more.
        """
        content = self._ask(ids)
        includes = as_object(content.get("includes"))
        names = {str(one.get("id")): str(one.get("username") or "") for one in _objects(includes.get("users"))}
        given = [_parent(one, names) for one in _objects(content.get("data")) if str(one.get("id")) in ids]
        posts = [one for one in given if one["author"] not in own]
        gone = {one["id"]: "your own" for one in given if one["author"] in own}
        for error in _objects(content.get("errors")):
            post = str(error.get("resource_id") or error.get("value"))
            is_over = str(error.get("type")).rpartition("/")[2] in _GONE
            if post in ids and is_over and error.get("resource_type", "tweet") == "tweet":
                gone.setdefault(post, str(error.get("title") or "gone"))
        for one in posts:
            gone.pop(one["id"], None)
        lines = [{"id": post, "platform": TWITTER, "gone": reason} for post, reason in gone.items()]
        return Page([*posts, *lines], len(posts))

    def _ask(self, ids: Sequence[str]) -> dict[str, Any]:
        problem = ""
        for attempt in range(_TRIES):
            if attempt and not self._free_at:
                self._sleep(2.0**attempt)
            self._wait(self._free_at - self._clock())
            self._free_at = 0.0
            try:
                answer = self._client.get("/2/tweets", params={"ids": ",".join(ids), **_QUERY})
                self._note_limit(answer, attempt)
                if answer.status_code == 200:
                    return _whole(answer)
            except (httpx.RequestError, ValueError) as error:
                problem = str(error) or type(error).__name__
                continue
            _refuse(answer)
            problem = f"HTTP {answer.status_code}"
        raise DoppelError(
            tr("X does not answer ({problem}); what came so far is kept: try again later", problem=problem)
        )

    def _note_limit(self, answer: httpx.Response, attempt: int) -> None:
        """When the next request may be made, by the headers of the last answer."""
        is_refused = answer.status_code == 429
        if not is_refused and answer.headers.get("x-rate-limit-remaining") != "0":
            return
        try:
            self._free_at = float(int(answer.headers["x-rate-limit-reset"])) + 1  # clocks differ a little
        except (KeyError, ValueError):
            self._free_at = self._clock() + 60.0 * 2**attempt if is_refused else 0.0

    def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if seconds > _LONGEST_WAIT:
            raise DoppelError(
                tr(
                    "X gives no more for {hours} hours; what came so far is kept: try again then",
                    hours=f"{seconds / 3600:.1f}",
                )
            )
        self._told(tr("X asks to wait for {seconds} s", seconds=f"{seconds:.0f}"))
        self._sleep(seconds)


def _refuse(answer: httpx.Response) -> None:
    """Raises for an answer that no other try will change."""
    detail = _detail(answer)
    if answer.status_code == 401:
        raise UserError(tr("X does not know the token in {variable} (401): copy it again", variable=TOKEN))
    if answer.status_code == 403:
        raise UserError(
            tr(
                "X does not let the app of {variable} read posts (403: {detail}); see its access on developer.x.com",
                variable=TOKEN,
                detail=detail,
            )
        )
    is_used_up = answer.status_code == 429 and ("usage-capped" in answer.text or "UsageCap" in answer.text)
    if answer.status_code == 402 or is_used_up:
        raise DoppelError(
            tr(
                "X wants to be paid for more posts ({status}: {detail}); what came so far is kept",
                status=answer.status_code,
                detail=detail,
            )
        )
    if answer.status_code != 429 and answer.status_code < 500:
        raise DoppelError(
            tr("X refuses the request ({status}: {detail})", status=answer.status_code, detail=detail or "?")
        )


def _detail(answer: httpx.Response) -> str:
    try:
        content = as_object(answer.json())
    except ValueError:
        content = {}
    text = str(content.get("detail") or content.get("title") or answer.reason_phrase)
    return " ".join(text.split())[:200]


def _whole(answer: httpx.Response) -> dict[str, Any]:
    """The answer as an object. Raises ValueError, as for the page of a hotel's network."""
    content = answer.json()
    if not isinstance(content, dict) or not ("data" in content or "errors" in content):
        raise ValueError(tr("not an answer of its API"))
    return content


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _parent(post: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A line of the file for a post as the API gives it; its text stays escaped, its links are resolved."""
    author = str(post.get("author_id") or "")
    note = as_object(post.get("note_tweet"))
    source = note if note.get("text") else post
    parent: dict[str, Any] = {
        "id": str(post["id"]),
        "platform": TWITTER,
        "author": author or "unknown",
        "name": names.get(author, ""),
        "text": _resolved(source),
        "created_at": post.get("created_at"),
    }
    answered = [one for one in _objects(post.get("referenced_tweets")) if one.get("type") == "replied_to"]
    if answered and answered[0].get("id"):
        parent["reply_to"] = str(answered[0]["id"])
    return parent


def _resolved(post: Any) -> str:
    """The text with links written out, without those to its own pictures and to what it quotes."""
    text = str(post.get("text") or "")
    for url in _objects(as_object(post.get("entities")).get("urls")):
        full = str(url.get("expanded_url") or "")
        is_attached = bool(url.get("media_key")) or ("/status/" in full and full.startswith(_OWN_LINKS))
        if short := str(url.get("url") or ""):
            text = text.replace(short, "" if is_attached else html.escape(full, quote=False) or short)
    return text.strip()
