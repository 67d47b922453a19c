"""Models behind an OpenAI-compatible endpoint, as responder, judge or writer: a cache on disk, clear errors.

The `openai` package sends the requests. Every answer is stored on disk under the hash of its request, so an interrupted
run continues where it stopped, and a second run sends nothing.
"""

import base64
import json
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrlhf_core.data import storage

if TYPE_CHECKING:  # the package takes a second to import; who uses no endpoint does not wait for it
    import openai

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)  # statuses after which another try can help
LONGEST_WAIT = 60.0  # seconds between two tries, also when the server wants more


class EndpointError(ValueError):
    """The endpoint cannot be used as it is set up, so other requests would fail too."""


class NoAnswer(ValueError):
    """One request got no usable answer: refused, malformed, or still failing after all tries."""


@dataclass(frozen=True)
class Endpoint:
    """Address, model and limits of a server."""

    url: str  # up to and with the version, such as "http://localhost:8000/v1"
    model: str
    key_name: str = ""  # environment variable that holds the key; blank when none is needed
    temperature: float = 0.0
    max_tokens: int = 1024
    timeout: float = 120.0  # seconds per try
    tries: int = 5
    wait: float = 1.0  # seconds before the second try; doubled for each further one
    concurrency: int = 4
    top_p: float = 1.0  # nucleus share to sample from; sent only below 1
    as_is: bool = False  # accept empty and cut-off answers, as samples of a policy


@dataclass(frozen=True)
class Answer:
    """The text, its token counts, and whether it came from the cache."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    cached: bool
    finished: bool = True  # False for an answer that was cut off, which only `as_is` accepts


def picture(file: str | Path) -> dict[str, Any]:
    """A picture as part of a message."""
    kind = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif"}.get(Path(file).suffix.lower(), "png")
    data = base64.b64encode(Path(file).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def user(text: str, pictures: Sequence[str | Path] = ()) -> list[dict[str, Any]]:
    """One user turn, pictures first."""
    return [{"role": "user", "content": [*map(picture, pictures), {"type": "text", "text": text}]}]


# ---------------------------------------------------------------- one request


def _body(endpoint: Endpoint, messages: list[dict[str, Any]], seed: int | None) -> dict[str, Any]:
    """The request: `seed` and `top_p` are left out where they would change nothing."""
    body = {"model": endpoint.model, "messages": messages, "temperature": endpoint.temperature}
    seeds = {} if seed is None else {"seed": seed}
    shares = {"top_p": endpoint.top_p} if endpoint.top_p < 1 else {}
    return body | {"max_tokens": endpoint.max_tokens} | seeds | shares


@lru_cache(maxsize=8)
def _client(url: str, key: str, timeout: float) -> "openai.OpenAI":
    """A client without retries of its own: its waits are fixed, and it does not retry a malformed reply."""
    import openai

    return openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=0)


def _connect(endpoint: Endpoint) -> "openai.OpenAI":
    """The client with the key from the environment. The key is never written to disk or into a message."""
    key = os.environ.get(endpoint.key_name, "").strip() if endpoint.key_name else "none"
    if not key or not key.isascii():
        raise EndpointError(f"The environment variable {endpoint.key_name} holds no key for {endpoint.url}. Set it.")
    return _client(endpoint.url, key, endpoint.timeout)


def _status(endpoint: Endpoint, error: "openai.APIStatusError") -> str:
    """Status and message of a failed request that is worth another try; the other statuses raise."""
    detail = error.body.get("message", error.body) if isinstance(error.body, dict) else error.body
    code, words = error.status_code, " ".join(str(detail or "").split())[:300]
    problem = f"status {code}, {words or error.response.reason_phrase}"
    if code in (401, 403):
        raise EndpointError(f"{endpoint.url} refuses the key ({endpoint.key_name or 'none: set key_name'}): {problem}.")
    if code == 404:
        raise EndpointError(f"{endpoint.url} has no model {endpoint.model!r} or is no such endpoint: {problem}.")
    if code not in RETRIED:
        raise NoAnswer(f"the request was not accepted: {problem}")
    return problem


def _pause(endpoint: Endpoint, attempt: int, wanted: str) -> None:
    """Wait before the next try: as long as the server wants, or twice as long each time, with some jitter."""
    try:
        seconds = float(wanted)
    except ValueError:
        seconds = endpoint.wait * 2**attempt * random.uniform(0.75, 1.25)
    time.sleep(min(max(seconds, 0.0), LONGEST_WAIT))


def _send(endpoint: Endpoint, body: dict[str, Any]) -> Any:
    """The decoded reply of the server, tried again where another try can help."""
    import openai

    client, problem = _connect(endpoint), ""
    for attempt in range(endpoint.tries):
        wanted = ""
        try:
            return json.loads(client.chat.completions.with_raw_response.create(**body).content)
        except openai.APIStatusError as error:
            problem, wanted = _status(endpoint, error), error.response.headers.get("Retry-After", "")
        except openai.APITimeoutError:
            problem = f"no reply within {endpoint.timeout:g} s"
        except openai.APIConnectionError as error:
            problem = f"no connection ({error.__cause__ or error})"
        except (ValueError, RecursionError) as error:
            problem = f"a malformed reply ({type(error).__name__})"
        if attempt + 1 < endpoint.tries:
            _pause(endpoint, attempt, wanted)
    raise NoAnswer(f"{endpoint.url} failed {endpoint.tries} times; last: {problem}")


def _read(reply: Any, as_is: bool) -> Answer:
    """The answer in a reply, or NoAnswer that says what is wrong with the reply."""
    try:
        choice, usage = reply["choices"][0], reply.get("usage") or {}
        text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        asked, answered = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
        raise NoAnswer(f"malformed answer: {json.dumps(reply)[:200]}") from None
    if refusal or reason == "content_filter":
        raise NoAnswer(f"refused: {refusal or 'content filter'}")
    text = "" if as_is and text is None else text
    if not isinstance(text, str) or not (text.strip() or as_is):
        raise NoAnswer(f"empty answer (finish_reason {reason!r})")
    if reason == "length" and not as_is:
        raise NoAnswer(f"cut off after {answered} tokens; raise max_tokens")
    return Answer(text, asked, answered, cached=False, finished=reason != "length")


def ask(endpoint: Endpoint, messages: list[dict[str, Any]], cache: str | Path, seed: int | None = None) -> Answer:
    """The answer to one conversation, from the folder `cache` when it is there; the server gets the `seed`."""
    body = _body(endpoint, messages, seed)
    data = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    name = storage.sha256_bytes(endpoint.url.encode() + b"\n" + b"as is\n" * endpoint.as_is + data)
    file = storage.path(cache) / name[:2] / f"{name}.json"
    if file.is_file():
        kept = storage.read_object(file, ("text", "prompt_tokens", "answer_tokens"))
        return Answer(kept["text"], kept["prompt_tokens"], kept["answer_tokens"], True, kept.get("finished", True))
    answer = _read(_send(endpoint, body), endpoint.as_is)
    kept = {key: value for key, value in asdict(answer).items() if key != "cached"}
    storage.write_json(file, {"model": endpoint.model, **kept})
    return answer


# ---------------------------------------------------------------- many requests


def ask_all(
    endpoint: Endpoint,
    conversations: Sequence[list[dict[str, Any]]],
    cache: str | Path,
    seeds: Sequence[int | None] = (),
) -> list[Answer | NoAnswer]:
    """Answers in the order of the conversations, at most `concurrency` requests at a time.

    A request without an answer gives its NoAnswer; an endpoint that cannot be used at all is an EndpointError.
    """
    _connect(endpoint)
    stop = threading.Event()

    def answered(messages: list[dict[str, Any]], seed: int | None) -> Answer | NoAnswer:
        if stop.is_set():
            return NoAnswer("not sent: the endpoint cannot be used")
        try:
            return ask(endpoint, messages, cache, seed)
        except NoAnswer as error:
            return error
        except EndpointError:
            stop.set()
            raise

    with ThreadPoolExecutor(endpoint.concurrency) as workers:
        return list(workers.map(answered, conversations, seeds or [None] * len(conversations)))
