"""A local server for what is read of the GKE, Compute Engine and Cloud Quotas APIs."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CLUSTER = "/v1/projects/my-project/locations/us-east5/clusters/big"
RESERVATIONS = "/compute/v1/projects/my-project/aggregated/reservations"
QUOTAS = "/v1/projects/my-project/locations/global/services/compute.googleapis.com/quotaInfos"
SERVICES = ("CONTAINER", "COMPUTE", "CLOUDQUOTAS")


def pool(name, machine, topology=None, **config):
    """A node pool; `policy` names its workload policy, `most` lets it grow."""
    placement = {"tpuTopology": topology} if topology else {}
    if policy := config.pop("policy", None):
        placement["policyName"] = policy
    made = {"name": name, "placementPolicy": placement, "locations": ["us-east5-a"]}
    if most := config.pop("most", 0):
        made["autoscaling"] = {"enabled": True, "totalMaxNodeCount": most}
    mode = {"mode": config.pop("metadata", "GKE_METADATA")}
    made["config"] = {"machineType": machine, "workloadMetadataConfig": mode} | config
    return made


def quota(*rows):
    """Of a quota: (dimensions, value)."""
    infos = [{"dimensions": d, "details": {"value": str(v)}} for d, v in rows]
    return {"dimensionsInfos": infos}


def reservation(machine, count, used=0, **more):
    """A specific reservation called spring."""
    held = {"count": str(count), "inUseCount": str(used)}
    held["instanceProperties"] = {"machineType": machine}
    place = {"name": "spring", "zone": "https://x/zones/us-east5-a", "status": "READY"}
    return place | {"specificReservation": held} | more


class FakeGoogle:
    """`objects` is path → object; `reservations` those of the zone; `refuse` path → (code, why)."""

    def __init__(self, monkeypatch) -> None:
        self.pools = []
        self.cluster = {"workloadIdentityConfig": {"workloadPool": "my-project.svc.id.goog"}}
        self.reservations = []
        self.objects = {}
        self.refuse = {}
        self.headers = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                """Silence."""

            def do_GET(self):
                fake.headers.append(dict(self.headers))
                status, value = fake.reply(urlsplit(self.path).path)
                if status >= 400:
                    value = {"error": {"code": status, "message": value}}
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        url = f"http://127.0.0.1:{self.server.server_port}/"
        for service in SERVICES:
            monkeypatch.setenv(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}", url)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def reply(self, path):
        if path in self.refuse:
            return self.refuse[path]
        if path == CLUSTER:
            return 200, self.cluster | {"nodePools": self.pools}
        if path == RESERVATIONS:
            return 200, {"items": {"zones/us-east5-a": {"reservations": self.reservations}}}
        return (200, self.objects[path]) if path in self.objects else (404, "not found")
