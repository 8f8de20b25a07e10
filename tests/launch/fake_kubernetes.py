"""A local server for the part of the Kubernetes API that the gke back end uses."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

GROUPS = {"apps": "v1", "storage.k8s.io": "v1", "jobset.x-k8s.io": "v1alpha2",
          "kueue.x-k8s.io": "v1beta1", "networking.gke.io": "v1"}  # fmt: skip
KUEUE = "/apis/kueue.x-k8s.io/v1beta1"
SPACE = "/api/v1/namespaces/research"
VERSION = dict.fromkeys(
    ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "platform"), "x"
) | {"major": "1", "minor": "34"}
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/research/jobsets"
PODS = "/api/v1/namespaces/research/pods"


def image(tag: str) -> dict:
    """A controller's deployment."""
    containers = [{"name": "manager", "image": f"registry.k8s.io/jobset/jobset:{tag}"}]
    return {"metadata": {"name": "m"}, "spec": {"template": {"spec": {"containers": containers}}}}


def node(pool: str, ready: bool = True, **labels: str) -> dict:
    """A node; `gke_spot` stands for the label cloud.google.com/gke-spot."""
    named = {f"cloud.google.com/{k.replace('_', '-')}": v for k, v in labels.items()}
    return {
        "metadata": {"labels": named | {"cloud.google.com/gke-nodepool": pool}},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def cluster_queue(quota: int, resource: str = "google.com/tpu", **spec) -> dict:
    flavor = {"name": "f", "resources": [{"name": resource, "nominalQuota": str(quota)}]}
    groups = [{"coveredResources": [resource], "flavors": [flavor]}]
    return {"metadata": {"name": "cluster"}, "spec": {"resourceGroups": groups} | spec}


def good_objects() -> dict:
    """Path → object of a cluster on which nothing is missing."""
    active = {"conditions": [{"type": "Active", "status": "True"}]}
    return {
        f"{SPACE}": {"metadata": {"name": "research"}},
        f"{SPACE}/serviceaccounts/default": {"metadata": {"name": "default"}},
        f"{SPACE}/serviceaccounts/trainer": {"metadata": {"name": "trainer"}},
        "/apis/storage.k8s.io/v1/csidrivers/gcsfuse.csi.storage.gke.io": {"metadata": {}},
        "/apis/apps/v1/namespaces/jobset-system/deployments/jobset-controller-manager": image(
            "v0.10.1"
        ),
        f"{KUEUE}/namespaces/research/localqueues/team": {
            "metadata": {"name": "team"}, "spec": {"clusterQueue": "cluster"}, "status": active,
        },
        f"{KUEUE}/clusterqueues/cluster": cluster_queue(4096),
        "/apis/scheduling.k8s.io/v1/priorityclasses/high": {"metadata": {"name": "high"}},
    }  # fmt: skip


class FakeKubernetes:
    """`jobsets`, `pods`, and `objects` by path; tests change them as controllers would."""

    def __init__(self) -> None:
        self.jobsets: dict = {}
        self.pods: dict = {}
        self.objects = good_objects()
        self.nodes = [node("a") for _ in range(4)]
        self.version = "v1.34.1-gke.3971001"
        self.groups = dict(GROUPS)
        self.allowed = True
        self.refuse: tuple[int, str] | None = None
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

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
            return self.described(path, query)
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

    def described(self, path: str, query: dict):
        """What the cluster has, and may do; only its JobSets can be changed."""
        if path == "/version/":
            return 200, VERSION | {"gitVersion": self.version}
        if path == "/apis/":
            groups = [
                {"name": g, "versions": [], "preferredVersion": {"groupVersion": g, "version": v}}
                for g, v in self.groups.items()
            ]
            return 200, {"kind": "APIGroupList", "groups": groups}
        if path.endswith("/selfsubjectaccessreviews"):
            return 201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": self.allowed}}
        if path == "/api/v1/nodes":
            pairs = query.get("labelSelector", [""])[0].split(",")
            wanted = dict(pair.split("=") for pair in pairs if pair)
            found = [n for n in self.nodes if wanted.items() <= n["metadata"]["labels"].items()]
            return 200, {"kind": "NodeList", "items": found}
        if path in self.objects:
            return 200, self.objects[path]
        inside = [o for p, o in self.objects.items() if p.rpartition("/")[0] == path]
        return (200, {"kind": "List", "items": inside}) if inside else (404, "not found")
