"""`llm-jax serve` under load: many clients at once, mixed lengths, one in five leaves early.

    python benchmarks/serve_load.py                            # 28 M parameters, 64 clients, 120 s
    python benchmarks/serve_load.py --model runs/first --seconds 30 --clients 16

Each client streams one greedy completion after another. It is measured how many tokens the server
makes per second, the time to the first token of each answer, the time between tokens, and the
server's memory (medians of both halves of the time). At the end it gets SIGTERM with clients
waiting: every accepted answer must come, and the exit code must be 0. Then every finished answer is
compared with the one that the engine makes of that prompt alone, and the speed with that of the
same engine without a server, with all requests known from the start.

Each line is a JSON object with a figure's `name`, `value` and `unit`. The exit code is 1 if an
answer is wrong or missing, or the server did not end well. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

START_SECONDS = 600
WORDS = (
    "def", "return", "吾輩は", "猫である", "class", "import", "value", "名前は", "まだ", "無い",
)  # fmt: skip
CONTEXT = 512
LEAVES = 5
"""One client request in so many leaves before its answer is whole."""


@dataclass
class Asked:
    """One request, and what came of it. Times are those of `time.perf_counter`."""

    prompt: str
    tokens: int
    began: float = 0.0
    lines: list[tuple[float, str]] = field(default_factory=list)
    left: bool = False
    whole: bool = False
    status: int = 0

    @property
    def text(self) -> str:
        events = (json.loads(line[6:]) for _, line in self.lines if line.startswith("data: {"))
        return "".join(event["choices"][0]["text"] for event in events)


def random_run(folder: Path) -> None:
    """A run of 28 M random parameters, with a tokenizer of this Python's library."""
    from llm_jax.config import ComputeConfig, DataConfig, ModelConfig, RunConfig
    from llm_jax.convert.hf_import import write_run
    from llm_jax.data.tokenizers.training import train
    from llm_jax.models.protocol import parameter_shapes

    texts = [path.read_text("utf-8") for path in sorted(Path(json.__file__).parent.glob("*.py"))]
    tokenizer = train([*texts, " ".join(WORDS) * 50], vocab_size=1024)
    model = ModelConfig(
        vocab_size=16_384, num_layers=8, d_model=384, num_heads=6, num_kv_heads=6, head_dim=64,
        d_ff=1024, max_seq_len=CONTEXT,
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> np.ndarray:
        one = np.ones(leaf.shape, np.float32)
        return one if leaf.ndim < 2 else np.float32(0.05) * rng.standard_normal(leaf.shape, "f4")

    import jax

    params = jax.tree.map(draw, parameter_shapes(model))
    config = RunConfig(
        name="load", out=str(folder), steps=1, model=model, compute=ComputeConfig(dtype="float32"),
        data=DataConfig(path="none", seq_len=CONTEXT, batch_size=1),
    )  # fmt: skip
    folder.mkdir()
    write_run(folder, config, params, tokenizer)


def requests(count: int) -> list[tuple[str, int]]:
    """Prompts of 1 to 60 words with 8 to 160 tokens to make; the first are as mixed as all."""
    rng = random.Random(0)
    return [
        (" ".join(rng.choices(WORDS, k=rng.choice((1, 4, 16, 60)))), rng.choice((8, 40, 160)))
        for _ in range(count)
    ]


async def stream(host: str, port: int, asked: Asked, keep: int | None) -> None:
    """One request by a bare socket, so that the client's work is small beside the server's.

    Args:
      keep: lines after which the client leaves; None: it stays.
    """
    body = json.dumps({
        "model": "load", "prompt": asked.prompt, "max_tokens": asked.tokens, "temperature": 0,
        "stream": True, "ignore_eos": True,
    }).encode()  # fmt: skip
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    asked.began = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(head.encode() + body)
        asked.status = int((await reader.readline()).split()[1])
        async for raw in reader:
            line = raw.decode().strip()
            if line.startswith("data: "):
                asked.lines.append((time.perf_counter(), line))
                asked.whole = line == "data: [DONE]"
                if keep is not None and len(asked.lines) >= keep:
                    asked.left = True
                    return
    finally:
        writer.close()


async def load(url: str, args: argparse.Namespace, pid: int) -> dict[str, Any]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    kinds, done, memory = requests(args.kinds), [], []
    counter = iter(range(10**9))
    end = time.perf_counter() + args.seconds

    async def client() -> None:
        while time.perf_counter() < end:
            number = next(counter)
            asked = Asked(*kinds[number % len(kinds)])
            done.append(asked)
            leaves = number % LEAVES == LEAVES - 1
            await stream(host, int(port), asked, 2 if leaves else None)

    async def watch() -> None:
        while time.perf_counter() < end:
            memory.append(resident(pid))
            await asyncio.sleep(min(1.0, args.seconds / 10))

    before = await made_tokens(host, int(port))
    clients = [asyncio.create_task(client()) for _ in range(args.clients)]
    watching = asyncio.create_task(watch())
    began = time.perf_counter()
    await asyncio.sleep(args.seconds)
    tokens, seconds = await made_tokens(host, int(port)) - before, time.perf_counter() - began
    await asyncio.sleep(0.5)  # by now the last requests are accepted
    subprocess.run(["kill", "-TERM", str(pid)], check=True)
    await asyncio.gather(*clients, watching)
    return {"asked": done, "tokens_per_second": tokens / seconds, "memory": memory}


async def made_tokens(host: str, port: int) -> float:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    line = next(
        one for one in text.splitlines() if one.startswith("llm_jax_generated_tokens_total")
    )
    return float(line.split()[-1])


def resident(pid: int) -> float:
    """Megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def check(folder: str, args: argparse.Namespace, asked: list[Asked]) -> dict[str, Any]:
    """Compares the answers with those made alone; measures the engine without a server."""
    from llm_jax.infer.completion_text import TextFeed
    from llm_jax.infer.engine.engine import Engine
    from llm_jax.infer.engine.request import Request
    from llm_jax.infer.engine.settings import EngineSettings
    from llm_jax.language_model import load_model

    model = load_model(folder)
    kinds = requests(args.kinds)
    made = [Request(prompt=tuple(model.tokens(p)), max_tokens=n) for p, n in kinds]
    engine = Engine(model, EngineSettings(slots=args.slots))
    engine.warm_up()
    alone = {}
    for kind, request in zip(kinds, made, strict=True):
        (ticket,) = engine.run([request])
        feed = TextFeed(model.tokenizer)
        alone[kind] = "".join(feed.feed(token)[0] for token in ticket.tokens) + feed.end()
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        tickets = engine.run(made * max(1, 128 // len(made)))
        tokens = sum(len(ticket.tokens) for ticket in tickets)
        rates.append(tokens / (time.perf_counter() - began))
    whole = [one for one in asked if one.whole]
    wrong = [one for one in whole if one.text != alone[one.prompt, one.tokens]]
    return {"compared": len(whole), "different": len(wrong), "offline": float(np.median(rates))}


def percentile(values: list[float], percent: int) -> float:
    return float(np.percentile(values, percent)) if values else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a run (default: 28 M random parameters)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--kinds", type=int, default=64, help="different requests")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = args.model or f"{folder}/load"
        if args.model is None:
            random_run(Path(place))
        found, code, said = served(place, Path(folder, "log"), args)
        checked = check(place, args, found["asked"])
    figures = figures_of(found, checked)
    for name, (value, unit) in figures.items():
        print(json.dumps({"name": name, "value": round(value, 4), "unit": unit}), flush=True)
    print(json.dumps({"name": "exit_code", "value": code, "unit": ""}), flush=True)
    bad = ("different_answers", "accepted_without_answer", "refused")
    if code or "Traceback" in said or any(figures[name][0] for name in bad):
        print(said[-2000:], file=sys.stderr)
        sys.exit(1)


def served(place: str, log: Path, args: argparse.Namespace) -> tuple[dict[str, Any], int, str]:
    """What clients met, the server's exit code, and what it said.

    Its log is a file: a pipe that nobody reads would stop it when it is full.
    """
    words = ["serve", f"load={place}", "--port", "0", "--slots", str(args.slots), "--queue", "4096"]
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "llm_jax", *words], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        url = address(log, server)
        found = asyncio.run(load(url, args, server.pid))
        code = server.wait(args.seconds + 60)
    finally:
        server.kill()
    return found, code, log.read_text()


def address(log: Path, server: subprocess.Popen[bytes]) -> str:
    """Waits until the server says where it is."""
    end = time.perf_counter() + START_SECONDS
    while time.perf_counter() < end and server.poll() is None:
        lines = log.read_text().splitlines()
        if line := next((one for one in lines if one.startswith("serving at ")), None):
            return line.split()[2]
        time.sleep(0.1)
    raise SystemExit(f"The server did not start:\n{log.read_text()}")


def figures_of(found: dict[str, Any], checked: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """Name → value and unit."""
    asked: list[Asked] = found["asked"]
    whole = [one for one in asked if one.whole]
    accepted = [one for one in asked if one.status == 200 and not one.left]
    first = [one.lines[0][0] - one.began for one in asked if one.lines]
    between = [(one.lines[-1][0] - one.lines[0][0]) / max(1, one.tokens - 1) for one in whole]
    half = len(found["memory"]) // 2
    early, late = (float(np.median(part)) for part in
                   (found["memory"][:half], found["memory"][half:]))  # fmt: skip
    rate, offline = found["tokens_per_second"], checked["offline"]
    return {
        "tokens_per_second": (rate, "tokens/s"),
        "offline_tokens_per_second": (offline, "tokens/s"),
        "share_of_offline": (rate / offline, ""),
        "first_token_p50": (percentile(first, 50), "s"),
        "first_token_p99": (percentile(first, 99), "s"),
        "token_p50": (percentile(between, 50), "s"),
        "token_p99": (percentile(between, 99), "s"),
        "memory_first_half": (early, "MB"),
        "memory_last_half": (late, "MB"),
        "memory_growth": (late / early - 1, ""),
        "requests": (len(asked), ""),
        "cancelled": (sum(one.left for one in asked), ""),
        "refused": (sum(one.status != 200 for one in asked), ""),
        "accepted_without_answer": (sum(not one.whole for one in accepted), ""),
        "compared_answers": (checked["compared"], ""),
        "different_answers": (checked["different"], ""),
    }


if __name__ == "__main__":
    main()
