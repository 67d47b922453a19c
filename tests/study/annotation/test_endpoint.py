"""The endpoint client against a real local HTTP server."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise

import pytest
from chat_server import reply, serving
from PIL import Image

from mmrlhf_study.annotation import endpoint
from mmrlhf_study.annotation.endpoint import Answer, Endpoint, EndpointError, NoAnswer

RAW = {  # what comes back when a question is one of these words
    "text": (200, b"no json at all", {}),
    "list": (200, b"[]", {}),
    "deep": (200, b"[" * 100_000, {}),
    "nothing": {"choices": []},
    "null": {"choices": [{"message": None}]},
    "empty": reply(" "),
    "refuse": reply(None, refusal="I will not."),
    "filter": reply("half", "content_filter"),
    "cut": reply("half", "length"),
    "bare": {"choices": [{"message": {"content": "no usage"}}]},
}


class Questions:
    """Answers by what the question says: `fail 2` fails twice first, `status 400` gives that status, and so on."""

    def __init__(self):
        self.seen, self.times, self.now, self.most, self.lock = Counter(), [], 0, 0, threading.Lock()

    def __call__(self, text, body, handler):
        with self.lock:
            self.seen[text] += 1
            self.times.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            return self.answer(text, self.seen[text], handler)
        finally:
            with self.lock:
                self.now -= 1

    def answer(self, text, time_asked, handler):
        word, _, value = text.partition(" ")
        if handler.path != "/v1/chat/completions":
            return 404, b'{"error": {"message": "no such path"}}', {}
        if word == "key" and handler.headers["Authorization"] != "Bearer right":
            return 401, b'{"error": {"message": "invalid key"}}', {}
        if word == "fail" and time_asked <= int(value):
            return 503, b"busy", {}
        if word == "later" and time_asked == 1:
            return 429, b'{"error": "slow down"}', {"Retry-After": "0.3"}
        if word == "status":
            return int(value), b'{"error": {"message": "because"}}', {}
        if word == "slow":
            time.sleep(float(value))
        if word == "hang" and time_asked == 1:
            return handler.connection.close()
        return RAW.get(text, reply(f"answer to {text}"))


@pytest.fixture
def server():
    with serving(Questions()) as running:
        yield running


@pytest.fixture
def ask(server, tmp_path):
    """Ask one question, with a cache that lasts for the test."""

    def call(question, seed=None, **changes):
        return endpoint.ask(at(server, **changes), endpoint.user(question), tmp_path / "cache", seed)

    return call


def at(server, **changes):
    return Endpoint(**{"url": server.address, "model": "m", "wait": 0.01, "tries": 3, "timeout": 5.0} | changes)


def test_an_answer_comes_with_its_counts_and_the_second_time_from_the_cache(server, ask):
    first, second = ask("hello"), ask("hello")
    assert first == Answer("answer to hello", 10, 3, cached=False)
    assert second == Answer("answer to hello", 10, 3, cached=True)
    assert server.respond.seen["hello"] == 1
    ask("hello", temperature=0.5)  # another setting is another request
    ask("hello", seed=1)
    assert server.respond.seen["hello"] == 3


def test_a_damaged_cache_file_is_named(ask, tmp_path):
    ask("hello")
    (file,) = tmp_path.rglob("*.json")
    for content in ("null", '{"text": "x"}', "{"):
        file.write_text(content)
        with pytest.raises(ValueError, match=file.name):
            ask("hello")


def test_pictures_go_before_the_question(server, tmp_path):
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (4, 4), "red").save(tmp_path / name)
    endpoint.ask(at(server), endpoint.user("what ?", [tmp_path / "a.png", tmp_path / "b.jpg"]), tmp_path / "cache")
    content = server.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


def test_failures_are_tried_again_and_the_wait_grows(server, ask):
    assert ask("fail 3", tries=4, wait=0.05).text == "answer to fail 3"
    gaps = [b - a for a, b in pairwise(server.respond.times)]
    assert len(gaps) == 3
    assert all(gap >= least for gap, least in zip(gaps, (0.0375, 0.075, 0.15), strict=True))
    assert ask("hang up", wait=0.05).text == "answer to hang up"
    with pytest.raises(NoAnswer, match=r"failed 3 times; last: status 503, busy"):
        ask("fail 9")
    assert server.respond.seen["fail 9"] == 3


def test_the_server_may_say_how_long_to_wait_up_to_a_limit(ask, monkeypatch):
    begun = time.monotonic()
    assert ask("later please").text == "answer to later please"
    assert time.monotonic() - begun >= 0.3
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.01)
    begun = time.monotonic()
    assert ask("later again").text == "answer to later again"
    assert time.monotonic() - begun < 0.3


def test_a_timeout_and_a_silent_address_are_named(ask, tmp_path):
    with pytest.raises(NoAnswer, match=r"failed 2 times; last: no reply within 0.2 s"):
        ask("slow 0.5", timeout=0.2, tries=2)
    with pytest.raises(NoAnswer, match="no connection"):
        ask("x", url="http://127.0.0.1:9/v1", tries=2)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("text", "malformed reply"),
        ("deep", "malformed reply"),
        ("list", "malformed answer"),
        ("nothing", "malformed answer"),
        ("null", "malformed answer"),
        ("empty", "empty answer"),
        ("refuse", "refused: I will not."),
        ("filter", "refused: content filter"),
        ("cut", "cut off after 3 tokens; raise max_tokens"),
        ("status 400", "status 400, because"),
    ],
)
def test_what_is_no_answer_says_why_and_is_not_kept(server, ask, tmp_path, question, says):
    with pytest.raises(NoAnswer) as caught:
        ask(question)
    assert says in str(caught.value)
    assert not list(tmp_path.rglob("*.json"))
    assert server.respond.seen[question] == (3 if says == "malformed reply" else 1)


def test_answers_taken_as_they_are_may_be_empty_or_cut_and_satisfy_nobody_else(server, ask):
    sampled = {"as_is": True, "top_p": 0.9}
    assert ask("cut", seed=3, **sampled).finished is False
    assert ask("empty", **sampled).text.strip() == ""
    assert ask("cut", seed=3, **sampled) == Answer("half", 10, 3, True, False)
    assert (server.bodies[0]["seed"], server.bodies[0]["top_p"]) == (3, 0.9)
    with pytest.raises(NoAnswer, match="cut off"):
        ask("cut", seed=3, top_p=0.9)
    assert ask("bare") == Answer("no usage", 0, 0, cached=False)


def test_a_wrong_key_stops_everything_and_is_never_written(server, ask, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "wrong-secret")
    place = at(server, key_name="SOME_KEY", concurrency=1)
    with pytest.raises(EndpointError, match=r"refuses the key \(SOME_KEY\): status 401, invalid key") as caught:
        endpoint.ask_all(place, [endpoint.user(f"key {n}") for n in range(20)], tmp_path)
    assert "wrong-secret" not in str(caught.value)
    assert sum(server.respond.seen.values()) == 1
    monkeypatch.setenv("SOME_KEY", "right")
    assert ask("key 0", key_name="SOME_KEY").text == "answer to key 0"
    assert not any("right" in file.read_text() for file in tmp_path.rglob("*.json"))
    for unusable in ("", " ", "schlüssel"):
        monkeypatch.setenv("SOME_KEY", unusable)
        with pytest.raises(EndpointError, match="SOME_KEY holds no key"):
            endpoint.ask_all(place, [], tmp_path)


def test_a_wrong_path_is_an_error_of_the_endpoint(server, ask):
    with pytest.raises(EndpointError, match=r"no model 'm'.*: status 404, no such path"):
        ask("x", url=server.address.replace("v1", "v2"))


def test_many_are_asked_together_within_the_limit_and_come_in_order(server, tmp_path):
    questions = [f"slow 0.05{n}" if n % 5 else "refuse" for n in range(20)]
    place = at(server, concurrency=3)
    answers = endpoint.ask_all(place, [endpoint.user(question) for question in questions], tmp_path)
    assert server.respond.most == 3
    for question, answer in zip(questions, answers, strict=True):
        assert isinstance(answer, NoAnswer) if question == "refuse" else answer.text == f"answer to {question}"


def test_a_stopped_run_goes_on_where_it_was(server, tmp_path):
    asked = [endpoint.user(f"q {n}") for n in range(6)]
    endpoint.ask_all(at(server), asked[:4], tmp_path)
    answers = endpoint.ask_all(at(server), asked, tmp_path)
    assert [answer.cached for answer in answers] == [True] * 4 + [False] * 2
    assert set(server.respond.seen.values()) == {1}


def test_the_openai_package_is_imported_only_to_send():
    code = "import sys, mmrlhf_study.annotation.endpoint; sys.exit('openai' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
