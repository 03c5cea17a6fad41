"""A judge behind an endpoint of this machine, which answers as a test says."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Endpoint(ThreadingHTTPServer):
    """Answers by `decide(first, second)`; `faults` are played before."""

    def __init__(self, decide):
        super().__init__(("127.0.0.1", 0), Handler)
        self.decide, self.faults, self.seen = decide, [], []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, self.headers.get("Authorization"), body))
            fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        if fault == "silent":
            time.sleep(1)
        if fault == "broken":
            self.send_response(200)
            self.send_header("Content-Length", "500")
            self.end_headers()
            self.wfile.write(b"{}")
            self.close_connection = True
            return
        text = body["messages"][0]["content"]
        if "[Answer]\n" in text:
            reply = f"**Rating: {rating_of(text.split('[Answer]' + chr(10))[1])}/5**"
        else:
            first = text.split("[Answer A]\n")[1].split("\n\n[Answer B]")[0]
            second = text.split("[Answer B]\n")[1].split("\n\n")[0]
            reply = f"Verdict: {self.server.decide(first, second)}"
        content = fault if fault is not None else reply
        value = {
            "choices": [{"message": {"content": content}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 3},
        }
        payload = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        """Say nothing."""


def rating_of(text):
    """As many points as the first paragraph has words."""
    return min(5, max(1, len(text.split("\n\n")[0].split())))


def longer(first, second):
    return "A" if len(first) > len(second) else "B"


@contextmanager
def endpoint_of(decide) -> Iterator[Endpoint]:
    server = Endpoint(decide)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
