"""An object-store server on this machine, and a proxy before it that has bad days."""

import contextlib
import http.client
import http.server
import secrets
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
REFUSED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The address of a server that speaks S3 and forgets all when it ends."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def variables(server: str) -> dict[str, str]:
    """What a process needs in its environment to use the server."""
    return {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }


def new_bucket(server: str) -> str:
    """Make a bucket and return its name."""
    name = f"b{secrets.token_hex(6)}"
    request = urllib.request.Request(f"{server}/{name}", method="PUT")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
    return name


@dataclass
class Weather:
    """What the proxy does to requests; `each` is asked for every one of them.

    `each` gets the method and the path, and says "" (pass on), "busy" (503), "refused" (403), "lost" (obeyed, but the
    connection ends before the answer) or "dead" (the connection ends).
    """

    each: Callable[[str, str], str] = lambda method, path: ""
    seen: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def proxy(server: str, weather: Weather) -> Iterator[str]:
    """The address of a proxy before the server."""
    target = server.removeprefix("http://")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            weather.seen.append((self.command, self.path))
            fate = weather.each(self.command, self.path)
            if fate in ("busy", "refused"):
                self.answer(503 if fate == "busy" else 403, {}, BUSY if fate == "busy" else REFUSED)
                return
            if fate != "dead":
                there = http.client.HTTPConnection(target, timeout=60)
                headers = {name: text for name, text in self.headers.items() if name.lower() != "host"}
                there.request(self.command, self.path, body, headers)
                found = there.getresponse()
                content = found.read()
                there.close()
            if fate:
                self.close_connection = True
                return
            self.answer(found.status, dict(found.getheaders()), content)

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            kept = {
                name: text for name, text in headers.items() if name.lower() not in ("connection", "transfer-encoding")
            }
            if self.command != "HEAD":
                kept = {name: text for name, text in kept.items() if name.lower() != "content-length"}
                kept["Content-Length"] = str(len(content))
            for name, text in kept.items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    running = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()
