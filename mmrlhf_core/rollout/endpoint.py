"""Any OpenAI-compatible endpoint as responder, judge or writer: retries, a cache on disk, totals, clear errors.

`ask_all` sends chat requests, a few at a time, and returns answers in the order asked. An answer is kept under the hash
of its request, so a stopped run goes on where it was and a second run costs nothing.
"""

import base64
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from mmrlhf_core.data import storage
from mmrlhf_core.data.storage import sha256_bytes

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # statuses that are worth another try
LONGEST_WAIT = 60.0  # seconds between two tries, also when the server asks for more


class EndpointError(ValueError):
    """The endpoint cannot be used as it is set up; no other request would fare better."""


class NoAnswer(ValueError):
    """One request got no usable answer: refused, malformed, or still failing after all tries."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, whom, and within what limits."""

    url: str  # up to and with the version, such as "http://localhost:8000/v1"
    model: str
    key_name: str = ""  # environment variable that holds the key; blank when none is needed
    temperature: float = 0.0
    max_tokens: int = 1024
    timeout: float = 120.0  # seconds per try
    tries: int = 5
    wait: float = 1.0  # seconds before the second try; doubled for each further one
    concurrency: int = 4
    price_in: float = 0.0  # per million prompt tokens
    price_out: float = 0.0  # per million answer tokens
    top_p: float = 1.0  # nucleus share to sample from; sent only below 1
    as_is: bool = False  # take empty and cut-off answers for what they are, as samples of a policy


@dataclass(frozen=True)
class Answer:
    """What came back: the text, and what it took."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    cached: bool
    finished: bool = True  # False only where answers are taken as they are and this one was cut off


@dataclass(frozen=True)
class Totals:
    """Sums over answers; `cost` counts only what was really asked."""

    answers: int
    cached: int
    failed: int
    prompt_tokens: int
    answer_tokens: int
    cost: float


def picture(file: str | Path) -> dict[str, Any]:
    """A picture as part of a message."""
    kind = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif"}.get(Path(file).suffix.lower(), "png")
    data = base64.b64encode(Path(file).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def user(text: str, pictures: Sequence[str | Path] = ()) -> list[dict[str, Any]]:
    """One user turn, pictures first."""
    return [{"role": "user", "content": [*map(picture, pictures), {"type": "text", "text": text}]}]


# ---------------------------------------------------------------- one request


def _body(endpoint: Endpoint, messages: list[dict[str, Any]], seed: int | None) -> bytes:
    """The request, always in the same bytes for the same question and seed."""
    body = {
        "model": endpoint.model,
        "messages": messages,
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
        **({} if seed is None else {"seed": seed}),
        **({"top_p": endpoint.top_p} if endpoint.top_p < 1 else {}),
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _headers(endpoint: Endpoint) -> dict[str, str]:
    """Headers with the key from the environment, which is written nowhere."""
    if not endpoint.key_name:
        return {"Content-Type": "application/json"}
    key = os.environ.get(endpoint.key_name, "").strip()
    if not key:
        raise EndpointError(f"The environment variable {endpoint.key_name} holds no key for {endpoint.url}. Set it.")
    return {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}


def _said(error: urllib.error.HTTPError) -> str:
    """The server's own words about an error, in one line."""
    text = error.read(4096).decode(errors="replace")
    try:
        detail = json.loads(text)["error"]
        text = detail["message"] if isinstance(detail, dict) else str(detail)
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:300] or error.reason


def _pause(endpoint: Endpoint, attempt: int, asked: str | None) -> None:
    """Wait before the next try: as long as the server asks, or longer each time with some jitter."""
    try:
        seconds = float(asked or "")
    except ValueError:
        seconds = endpoint.wait * 2**attempt * random.uniform(0.75, 1.25)
    time.sleep(min(max(seconds, 0.0), LONGEST_WAIT))


def _send(endpoint: Endpoint, body: bytes) -> dict[str, Any]:
    """The decoded reply of the server, tried again while that makes sense."""
    request = urllib.request.Request(
        f"{endpoint.url.rstrip('/')}/chat/completions", body, _headers(endpoint), method="POST"
    )
    problem = ""
    for attempt in range(endpoint.tries):
        asked = None
        try:
            with urllib.request.urlopen(request, timeout=endpoint.timeout) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            problem = f"status {error.code}, {_said(error)}"
            if error.code in (401, 403):
                where = endpoint.key_name or "no key: set key_name"
                raise EndpointError(f"{endpoint.url} refuses the key ({where}): {problem}.") from None
            if error.code == 404:
                raise EndpointError(
                    f"{endpoint.url} has no model {endpoint.model!r} or is no such endpoint: {problem}."
                ) from None
            if error.code not in AGAIN:
                raise NoAnswer(f"the request was not accepted: {problem}") from None
            asked = error.headers.get("Retry-After")
        except TimeoutError:
            problem = f"no reply within {endpoint.timeout:g} s"
        except (ValueError, HTTPException) as error:
            problem = f"a malformed reply ({type(error).__name__})"
        except OSError as error:
            problem = f"no connection ({error})"
        if attempt + 1 < endpoint.tries:
            _pause(endpoint, attempt, asked)
    raise NoAnswer(f"{endpoint.url} failed {endpoint.tries} times; last: {problem}")


def _read(reply: Any, as_is: bool) -> Answer:
    """The answer in a reply, or NoAnswer that says what is wrong with it."""
    try:
        choice, usage = reply["choices"][0], reply.get("usage") or {}
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise NoAnswer(f"malformed answer: {json.dumps(reply)[:200]}") from None
    if refusal or choice.get("finish_reason") == "content_filter":
        raise NoAnswer(f"refused: {refusal or 'content filter'}")
    text = "" if as_is and text is None else text
    if not isinstance(text, str) or not (text.strip() or as_is):
        raise NoAnswer(f"empty answer (finish_reason {choice.get('finish_reason')!r})")
    cut = choice.get("finish_reason") == "length"
    if cut and not as_is:
        raise NoAnswer(f"cut off after {counts[1]} tokens; raise max_tokens")
    return Answer(text, *counts, cached=False, finished=not cut)


def ask(endpoint: Endpoint, messages: list[dict[str, Any]], cache: str | Path, seed: int | None = None) -> Answer:
    """The answer to one conversation, from the cache folder when it was asked before; `seed` is passed on."""
    body = _body(endpoint, messages, seed)
    name = sha256_bytes(endpoint.url.encode() + b"\n" + b"as is\n" * endpoint.as_is + body)
    file = storage.path(cache) / name[:2] / f"{name}.json"
    if file.is_file():
        kept = storage.read_json(file)
        counts = (kept["prompt_tokens"], kept["answer_tokens"])
        return Answer(kept["text"], *counts, cached=True, finished=kept.get("finished", True))
    answer = _read(_send(endpoint, body), endpoint.as_is)
    told = {"text": answer.text, "finished": answer.finished}
    counts = {"prompt_tokens": answer.prompt_tokens, "answer_tokens": answer.answer_tokens}
    storage.write_json(file, {"model": endpoint.model, **told, **counts})
    return answer


# ---------------------------------------------------------------- many requests


def ask_all(
    endpoint: Endpoint,
    conversations: Sequence[list[dict[str, Any]]],
    cache: str | Path,
    seeds: Sequence[int | None] = (),
) -> list[Answer | NoAnswer]:
    """Answers in the order asked, at most `concurrency` at a time; a request without an answer leaves its reason.

    `seeds` holds one seed for each conversation, where they are wanted.
    An endpoint that cannot be used at all (wrong key, unknown model) is an EndpointError, and no more is asked.
    """
    _headers(endpoint)
    stop = threading.Event()

    def one(messages: list[dict[str, Any]], seed: int | None) -> Answer | NoAnswer:
        if stop.is_set():
            return NoAnswer("not asked: the endpoint cannot be used")
        try:
            return ask(endpoint, messages, cache, seed)
        except NoAnswer as error:
            return error
        except EndpointError:
            stop.set()
            raise

    with ThreadPoolExecutor(endpoint.concurrency) as workers:
        return list(workers.map(one, conversations, seeds or [None] * len(conversations)))


def totals(endpoint: Endpoint, answers: Sequence[Answer | NoAnswer]) -> Totals:
    """What some answers took, and cost where it was not from the cache."""
    good = [one for one in answers if isinstance(one, Answer)]
    paid = [one for one in good if not one.cached]
    cost = sum(one.prompt_tokens * endpoint.price_in + one.answer_tokens * endpoint.price_out for one in paid) / 1e6
    return Totals(
        len(good),
        len(good) - len(paid),
        len(answers) - len(good),
        sum(one.prompt_tokens for one in good),
        sum(one.answer_tokens for one in good),
        cost,
    )
