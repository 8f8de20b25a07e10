"""A package index on this machine, of wheels that hold nothing but their metadata."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def wheel(name: str, version: str, needs: tuple[str, ...] = ()) -> bytes:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in needs)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return made.getvalue()


class FakeIndex:
    """`wheels` is file name → content; `url` that of PEP 503's simple pages."""

    def __init__(self) -> None:
        self.wheels: dict[str, bytes] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def publish(self, name: str, version: str, needs: tuple[str, ...] = ()) -> None:
        self.wheels[f"{name}-{version}-py3-none-any.whl"] = wheel(name, version, needs)

    def page(self, name: str) -> bytes | None:
        files = {f: data for f, data in self.wheels.items() if f.startswith(f"{name}-")}
        links = [
            f'<a href="/files/{file}#sha256={hashlib.sha256(data).hexdigest()}">{file}</a>'
            for file, data in files.items()
        ]
        return "\n".join(links).encode() if links else None

    def _handler(self):
        index = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                """Silence."""

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                place, _, name = self.path.strip("/").partition("/")
                data = index.wheels.get(name) if place == "files" else index.page(name)
                self.send_response(404 if data is None else 200)
                kind = "application/octet-stream" if place == "files" else "text/html"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data or b"")

        return Handler
