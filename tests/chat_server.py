"""A local HTTP server in place of a model behind an OpenAI-compatible endpoint."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def reply(text, reason="stop", **message):
    """The body of a whole answer."""
    choice = {"message": {"role": "assistant", "content": text} | message, "finish_reason": reason}
    return {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 3}}


class ChatHandler(BaseHTTPRequestHandler):
    """Keeps each request's body and has the server's `respond(text, body, handler)` answer it.

    That returns a body, or a status with bytes and headers, or None when it has closed the connection.
    """

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
        answer = self.server.respond(body["messages"][0]["content"][-1]["text"], body, self)
        if answer is None:
            return
        status, data, headers = answer if isinstance(answer, tuple) else (200, json.dumps(answer).encode(), {})
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(respond):
    """The running server; `address` is the endpoint's url, `bodies` what it was sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), ChatHandler)
    server.daemon_threads, server.respond, server.bodies, server.lock = True, respond, [], threading.Lock()
    server.address = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
