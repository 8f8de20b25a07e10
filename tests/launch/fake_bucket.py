"""A local server for the part of Google Cloud Storage that small objects need."""

import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler
from typing import ClassVar


class Bucket(BaseHTTPRequestHandler):
    """The part of the Cloud Storage JSON API that the client uses for small objects."""

    objects: ClassVar[dict] = {}  # name -> (generation, content)
    hierarchical = True
    location = "US-EAST5"
    members: ClassVar[list] = []  # whom its policy lets write
    page_size = 1000
    clock = 0
    lock = threading.Lock()

    def log_message(self, *args):
        """Silence."""

    def answer(self, status, body=b"", kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def resource(self, name):
        generation, content = self.objects[name]
        return {
            "name": name,
            "bucket": "b",
            "generation": str(generation),
            "size": str(len(content)),
        }

    def page(self, query):
        """A page of a listing; the token is the name that the next page begins with."""
        start = query.get("pageToken", query.get("startOffset", [""]))[0]
        wanted = query["prefix"][0]
        names = sorted(n for n in self.objects if n.startswith(wanted) and n >= start)
        page, rest = names[: self.page_size], names[self.page_size :]
        more = {"nextPageToken": rest[0]} if rest else {}
        return {"items": [self.resource(name) for name in page]} | more

    def do_POST(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = re.search('boundary="?([^"]+)"?', self.headers["Content-Type"]).group(1)
        _, meta, media, _ = body.split(b"--" + boundary.encode())
        name = json.loads(meta.partition(b"\r\n\r\n")[2])["name"]
        with self.lock:
            if query.get("ifGenerationMatch") == ["0"] and name in self.objects:
                self.answer(412, {"error": {"code": 412, "message": "precondition"}})
                return
            Bucket.clock += 1
            content = media.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            self.objects[name] = (Bucket.clock, content)
        self.answer(200, self.resource(name))

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        with self.lock:
            if url.path.endswith("/o"):
                self.answer(200, self.page(query))
                return
            if url.path.endswith("/storage/v1/b/b"):
                space = {"hierarchicalNamespace": {"enabled": self.hierarchical}}
                self.answer(200, {"name": "b", "location": self.location} | space)
                return
            if url.path.endswith("/storage/v1/b/b/iam"):
                role = {"role": "roles/storage.objectUser", "members": self.members}
                self.answer(200, {"version": 3, "bindings": [role]})
                return
            name = urllib.parse.unquote(url.path.rpartition("/o/")[2])
            if name in self.objects:
                self.answer(200, self.objects[name][1], "application/octet-stream")
            else:
                self.answer(404, {"error": {"code": 404, "message": "no such object"}})

    def do_DELETE(self):
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path.rpartition("/o/")[2])
        with self.lock:
            found = self.objects.pop(name, None)
        self.answer(204 if found else 404)


class FilesAsObjects:
    """Stands for `Bucket.objects` where the bucket is mounted: a folder's files are its objects."""

    def __init__(self, folder):
        self.folder = folder

    def __iter__(self):
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return (path.relative_to(self.folder).as_posix() for path in files)

    def __contains__(self, name):
        return (self.folder / name).is_file()

    def __getitem__(self, name):
        path = self.folder / name
        return path.stat().st_mtime_ns, path.read_bytes()

    def __setitem__(self, name, value):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".new.{path.name}")
        temporary.write_bytes(value[1])
        temporary.replace(path)

    def pop(self, name, default):
        if name not in self:
            return default
        (self.folder / name).unlink()
        return name
