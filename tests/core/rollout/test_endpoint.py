"""The endpoint client against a real local HTTP server."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from mmrlhf_core.rollout import endpoint
from mmrlhf_core.rollout.endpoint import Answer, Endpoint, EndpointError, NoAnswer


def good(text: str, **more) -> dict:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | more],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3},
    }


class Server(ThreadingHTTPServer):
    """Answers by what the question says: `fail 2` fails twice first, `status 400` gives that status, and so on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: Counter = Counter()
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.times: list[float] = []
        self.bodies: list[dict] = []


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"][-1]["text"]
        with self.server.lock:
            self.server.seen[text] += 1
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
            self.server.times.append(time.monotonic())
            self.server.bodies.append(body)
        try:
            self.respond(text, self.server.seen[text])
        finally:
            with self.server.lock:
                self.server.now -= 1

    def respond(self, text: str, time_asked: int) -> None:
        word, _, value = text.partition(" ")
        if self.path != "/v1/chat/completions":
            return self.reply(404, b'{"error": {"message": "no such path"}}')
        if word == "key" and self.headers["Authorization"] != "Bearer right":
            return self.reply(401, b'{"error": {"message": "invalid key"}}')
        if word == "fail" and time_asked <= int(value):
            return self.reply(503, b"busy")
        if word == "later" and time_asked == 1:
            return self.reply(429, b'{"error": "slow down"}', Retry_After="0.3")
        if word == "status":
            return self.reply(int(value), b'{"error": {"message": "because"}}')
        if word == "slow":
            time.sleep(float(value))
        if word == "hang" and time_asked == 1:
            self.connection.close()
            return None
        raw = {
            "text": b"no json at all",
            "list": b"[]",
            "empty": json.dumps(good(" ")).encode(),
            "nothing": json.dumps({"choices": []}).encode(),
            "refuse": json.dumps(good("", message={"content": None, "refusal": "I will not."})).encode(),
            "filter": json.dumps(good("half", finish_reason="content_filter")).encode(),
            "cut": json.dumps(good("half", finish_reason="length")).encode(),
            "bare": json.dumps({"choices": [{"message": {"content": "no usage"}}]}).encode(),
        }
        return self.reply(200, raw.get(word, json.dumps(good(f"answer to {text}")).encode()))


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def at(server: Server, **changes) -> Endpoint:
    defaults = {"model": "m", "wait": 0.01, "tries": 3, "timeout": 5.0}
    return Endpoint(f"http://127.0.0.1:{server.server_port}/v1", **defaults | changes)


def test_an_answer_comes_with_its_counts_and_the_second_time_from_the_cache(server, tmp_path):
    place = at(server, price_in=2.0, price_out=10.0)
    first = endpoint.ask(place, endpoint.user("hello"), tmp_path)
    second = endpoint.ask(place, endpoint.user("hello"), tmp_path)
    assert first == Answer("answer to hello", 10, 3, cached=False)
    assert second == Answer("answer to hello", 10, 3, cached=True)
    assert server.seen["hello"] == 1
    found = endpoint.totals(place, [first, second, NoAnswer("x")])
    assert found == endpoint.Totals(2, 1, 1, 20, 6, cost=(10 * 2 + 3 * 10) / 1e6)
    endpoint.ask(at(server, temperature=0.5), endpoint.user("hello"), tmp_path)  # another setting is another request
    assert server.seen["hello"] == 2


def test_pictures_go_before_the_question(server, tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "b.jpg")
    endpoint.ask(at(server), endpoint.user("what ?", [tmp_path / "a.png", tmp_path / "b.jpg"]), tmp_path / "cache")
    content = server.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


def test_failures_are_tried_again_and_the_wait_grows(server, tmp_path):
    place = at(server, tries=4, wait=0.05)
    assert endpoint.ask(place, endpoint.user("fail 3"), tmp_path).text == "answer to fail 3"
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert len(gaps) == 3
    for gap, least in zip(gaps, (0.0375, 0.075, 0.15), strict=True):
        assert gap >= least
    assert endpoint.ask(place, endpoint.user("hang up"), tmp_path).text == "answer to hang up"
    with pytest.raises(NoAnswer, match=r"failed 3 times; last: status 503, busy"):
        endpoint.ask(at(server), endpoint.user("fail 9"), tmp_path)
    assert server.seen["fail 9"] == 3


def test_the_server_may_say_how_long_to_wait(server, tmp_path):
    begun = time.monotonic()
    assert endpoint.ask(at(server), endpoint.user("later please"), tmp_path).text == "answer to later please"
    assert time.monotonic() - begun >= 0.3


def test_a_timeout_is_told(server, tmp_path):
    with pytest.raises(NoAnswer, match=r"failed 2 times; last: no reply within 0.2 s"):
        endpoint.ask(at(server, timeout=0.2, tries=2), endpoint.user("slow 0.5"), tmp_path)


def test_nobody_listening_is_told(tmp_path):
    with pytest.raises(NoAnswer, match="no connection"):
        endpoint.ask(Endpoint("http://127.0.0.1:9/v1", "m", tries=2, wait=0.01), endpoint.user("x"), tmp_path)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("text", "a malformed reply"),
        ("list", "malformed answer"),
        ("nothing", "malformed answer"),
        ("empty", "empty answer"),
        ("refuse", "refused: I will not."),
        ("filter", "refused: content filter"),
        ("cut", "cut off after 3 tokens; raise max_tokens"),
        ("status 400", "the request was not accepted: status 400, because"),
    ],
)
def test_what_is_no_answer_says_why_and_is_not_kept(server, tmp_path, question, says):
    with pytest.raises(NoAnswer) as caught:
        endpoint.ask(at(server), endpoint.user(question), tmp_path)
    assert says in str(caught.value)
    assert not list(tmp_path.rglob("*.json"))
    assert server.seen[question] == (3 if question == "text" else 1)


def test_answers_taken_as_they_are_may_be_empty_or_cut_and_satisfy_nobody_else(server, tmp_path):
    sampled = at(server, as_is=True, top_p=0.9)
    assert endpoint.ask(sampled, endpoint.user("cut"), tmp_path, seed=3).finished is False
    assert endpoint.ask(sampled, endpoint.user("empty"), tmp_path).text.strip() == ""
    assert endpoint.ask(sampled, endpoint.user("cut"), tmp_path, seed=3) == Answer("half", 10, 3, True, False)
    assert (server.bodies[0]["seed"], server.bodies[0]["top_p"]) == (3, 0.9)
    with pytest.raises(NoAnswer, match="cut off"):
        endpoint.ask(at(server, top_p=0.9), endpoint.user("cut"), tmp_path, seed=3)


def test_usage_may_be_missing(server, tmp_path):
    assert endpoint.ask(at(server), endpoint.user("bare"), tmp_path) == Answer("no usage", 0, 0, cached=False)


def test_a_wrong_key_stops_everything_and_is_never_written(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "wrong-secret")
    place = at(server, key_name="SOME_KEY", concurrency=1)
    with pytest.raises(EndpointError, match=r"refuses the key \(SOME_KEY\): status 401, invalid key") as caught:
        endpoint.ask_all(place, [endpoint.user(f"key {n}") for n in range(20)], tmp_path)
    assert "wrong-secret" not in str(caught.value)
    assert sum(server.seen.values()) == 1
    monkeypatch.setenv("SOME_KEY", "right")
    assert endpoint.ask(place, endpoint.user("key 0"), tmp_path).text == "answer to key 0"
    assert not any("right" in file.read_text() for file in tmp_path.rglob("*.json"))
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(EndpointError, match="SOME_KEY holds no key"):
        endpoint.ask_all(place, [], tmp_path)


def test_a_wrong_path_is_told(server, tmp_path):
    with pytest.raises(EndpointError, match=r"has no model 'm' or is no such endpoint: status 404, no such path"):
        endpoint.ask(Endpoint(f"http://127.0.0.1:{server.server_port}/v2", "m"), endpoint.user("x"), tmp_path)


def test_many_are_asked_together_within_the_limit_and_come_in_order(server, tmp_path):
    questions = [f"slow 0.05 {n}" if n % 5 else "refuse" for n in range(20)]
    place = at(server, concurrency=3)
    found = endpoint.ask_all(
        place, [endpoint.user(q.replace("0.05 ", "0.05") if " " in q else q) for q in questions], tmp_path
    )
    assert server.most == 3
    for question, answer in zip(questions, found, strict=True):
        if question == "refuse":
            assert isinstance(answer, NoAnswer)
        else:
            assert answer.text == f"answer to {question.replace('0.05 ', '0.05')}"
    assert endpoint.totals(place, found).failed == 4


def test_a_stopped_run_goes_on_where_it_was(server, tmp_path):
    asked = [endpoint.user(f"q {n}") for n in range(6)]
    endpoint.ask_all(at(server), asked[:4], tmp_path)
    found = endpoint.ask_all(at(server), asked, tmp_path)
    assert [one.cached for one in found] == [True] * 4 + [False] * 2
    assert set(server.seen.values()) == {1}
