"""A local server for the part of the Kubernetes API that the gke back end uses."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/research/jobsets"
PODS = "/api/v1/namespaces/research/pods"


class FakeKubernetes:
    """`jobsets` and `pods` are name → object; tests change them as controllers would."""

    def __init__(self) -> None:
        self.jobsets: dict = {}
        self.pods: dict = {}
        self.refuse: tuple[int, str] | None = None
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _handler(self):
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                """Silence."""

            def do_GET(self):
                fake.answer(self, "GET")

            def do_POST(self):
                fake.answer(self, "POST")

            def do_DELETE(self):
                fake.answer(self, "DELETE")

        return Handler

    def answer(self, handler, verb: str) -> None:
        url = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length) or b"null")
        self.requests.append(f"{verb} {url.path}")
        status, value = self.refuse or self.reply(verb, url.path, parse_qs(url.query), body)
        if status >= 400:
            value = {"kind": "Status", "code": status, "message": value}
        data = json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def reply(self, verb: str, path: str, query: dict, body):
        if path == PODS:
            return 200, {"kind": "PodList", "items": list(self.pods.values())}
        name = path.removeprefix(JOBSETS).strip("/")
        if not path.startswith(JOBSETS):
            return 404, "not found"
        if verb == "POST":
            if body["metadata"]["name"] in self.jobsets:
                return 409, "already exists"
            self.jobsets[body["metadata"]["name"]] = body
            return 201, body
        if not name:
            label = query.get("labelSelector", [""])[0]
            items = [
                j for j in self.jobsets.values() if not label or label in j["metadata"]["labels"]
            ]
            return 200, {"kind": "JobSetList", "items": items}
        if name not in self.jobsets:
            return 404, f"jobsets {name} not found"
        if verb == "DELETE":
            self.pods.clear()
            return 200, self.jobsets.pop(name)
        return 200, self.jobsets[name]
