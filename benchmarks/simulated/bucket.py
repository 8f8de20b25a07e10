"""A model of a bucket of Cloud Storage behind the client's retries, in virtual time.

Limits are the published ones: 5,000 reads and 1,000 writes per second at first, doubling every 20
minutes of load; one write per second to an object; listings in pages of 1,000 names. Latencies
are log-normal around plausible medians. Requests beyond a limit get 429, some others 503, and the
reply to some is lost after they were carried out; the client tries again with random waits that
double (google-api-core: 1 s at first, 60 s at most, given up after 120 s).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from simulated.clock import World

PAGE = 1000
READS, WRITES = 5000.0, 1000.0
DOUBLING_SECONDS = 1200.0
SECONDS = {"read": 0.04, "list": 0.1, "write": 0.08}
UNAVAILABLE, LOST = 2e-4, 1e-4
GIVE_UP = 120.0
AT_ONCE = 10


class Bucket:
    """What all hosts share."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.dice = world, random.Random(seed)
        self.folders: defaultdict[str, dict[str, tuple[int, bytes, float]]] = defaultdict(dict)
        self.generation = 0
        self.limits = {"read": READS, "write": WRITES}
        self.second: Counter[tuple[str, int]] = Counter()
        """Requests by kind and second."""
        self.refused = 0
        self.sent = 0
        """Bytes written."""
        self.reports: dict[int, bytes] = {}
        """What trainers write through the mount: `status.<p>.json`."""

    def requests(self, second: int) -> int:
        return sum(self.second[kind, second] for kind in ("read", "list", "write"))

    def count(self, kind: str, number: int = 1) -> bool:
        """Counts requests of this second; False if the bucket refuses one more."""
        now = int(self.world.now)
        self.second[kind, now] += number
        limited = "write" if kind == "write" else "read"
        load = self.second["write", now]
        if limited == "read":
            load = self.second["read", now] + self.second["list", now]
        if load > self.limits[limited] / 2 and load - number <= self.limits[limited] / 2:
            self.limits[limited] *= 2 ** (1 / DOUBLING_SECONDS)
        return load <= self.limits[limited]

    def latency(self, kind: str) -> float:
        return SECONDS[kind] * self.dice.lognormvariate(0, 0.5)

    def request(self, kind: str, carry_out: Callable[[], Any], name: str = "") -> Any:
        """Carries a request out, with the client's retries. Raises `OSError` when it gives up."""
        began, wait = self.world.now, 1.0
        while True:
            taken = self.count(kind) and not self._too_often(kind, name)
            self.world.sleep(self.latency(kind))
            if taken and self.dice.random() > UNAVAILABLE:
                result = carry_out()
                if self.dice.random() > LOST:
                    return result
            self.refused += 1
            if self.world.now - began > GIVE_UP:
                raise OSError("503 the service is unavailable")
            self.world.sleep(self.dice.uniform(0, wait))
            wait = min(60.0, 2 * wait)

    def _too_often(self, kind: str, name: str) -> bool:
        held = self.folders[_folder(name)].get(name) if kind == "write" else None
        return held is not None and self.world.now - held[2] < 1.0

    def get(self, name: str) -> bytes | None:
        held = self.folders[_folder(name)].get(name)
        return held[1] if held else None

    def put(self, name: str, data: bytes) -> None:
        self.generation += 1
        self.sent += len(data)
        self.folders[_folder(name)][name] = (self.generation, data, self.world.now)


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


class ModelFolder:
    """The protocol of `llm_jax.launch.folder.Folder` over the model."""

    address = "gs://simulated/job"

    def __init__(self, bucket: Bucket, part_bytes: int) -> None:
        self.bucket, self.part_bytes = bucket, part_bytes
        self.open_parts: dict[str, tuple[int, bytes]] = {}

    def read(self, name: str) -> bytes | None:
        return self.bucket.request("read", lambda: self._content(name))

    def _content(self, name: str) -> bytes | None:
        if name.startswith("status."):
            return self.bucket.reports.get(int(name.split(".")[1]))
        return self.bucket.get(name)

    def read_many(self, names: Sequence[str]) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            self.bucket.count("read", len(some) - 1)
            found |= {name: self._content(name) for name in some}
            self.bucket.world.sleep(sum(self.bucket.latency("read") for _ in some[1:]) / AT_ONCE)
            found[some[0]] = self.read(some[0]) if len(some) < AT_ONCE else found[some[0]]
        return found

    def write(self, name: str, data: bytes) -> None:
        self.bucket.request("write", lambda: self.bucket.put(name, data), name)

    def create(self, name: str, data: bytes) -> bool:
        def carry_out() -> bool:
            if self.bucket.get(name) is not None:
                return False
            self.bucket.put(name, data)
            return True

        return self.bucket.request("write", carry_out) or self.read(name) == data

    def delete(self, name: str) -> None:
        here = self.bucket.folders[_folder(name)]
        self.bucket.request("write", lambda: here.pop(name, None))

    def names(self, prefix: str, after: str = "") -> dict[str, str]:
        place = prefix.rstrip("/")

        def listed() -> dict[str, str]:
            folders = self.bucket.folders
            here = [place] if place.count("/") == 2 else [
                folder for folder in folders
                if folder + "0" > after and (folder == place or folder.startswith(place + "/"))
            ]  # fmt: skip
            return {
                name: str(held[0])
                for folder in here
                for name, held in folders[folder].items()
                if name >= after
            }

        pages = [self.bucket.request("list", listed)]
        for _ in range(len(pages[0]) // PAGE):
            pages.append(self.bucket.request("list", dict))
        return pages[0]

    def append(self, name: str, data: bytes) -> None:
        part, held = self.open_parts.get(name, (0, b""))
        held += data
        self.write(f"{name}.{part:06d}", held)
        if len(held) >= self.part_bytes:
            part, held = part + 1, b""
        self.open_parts[name] = (part, held)

    def read_log(self, name: str, start: int) -> bytes:
        raise NotImplementedError("no agent reads logs")
