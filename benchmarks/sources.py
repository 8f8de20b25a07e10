"""Peak memory and speed of reading a file that grows 16 times, in one row group or one file.

    python benchmarks/sources.py [--megabytes N] [--format parquet jsonl.zst csv]

Each file is read by a process of its own: by `FileSource`, and for Parquet by the reference, which
is pyarrow's `read_table` of the same column. Memory is the most that a process held beyond what it
had after its imports; the ratios are to the smallest file, and to the reference.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import zstandard

SIZES = (1, 4, 16)
DOCUMENT_WORDS = 400


def texts(megabytes: float) -> Iterator[str]:
    """Documents of about 2 KB, of words that do not compress away."""
    dice = random.Random(0)
    words = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(1, 9))) for _ in range(50_000)]
    made = 0
    while made < megabytes * 1e6:
        text = " ".join(dice.choices(words, k=DOCUMENT_WORDS))
        made += len(text)
        yield text


def write(path: Path, megabytes: float) -> None:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"text": list(texts(megabytes))})
        pyarrow.parquet.write_table(table, path, row_group_size=len(table))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["text"], *([text] for text in texts(megabytes))])
    else:
        with path.open("wb") as raw, zstandard.open(raw, "w") as file:
            for text in texts(megabytes):
                file.write(json.dumps({"text": text}) + "\n")


def peak_bytes() -> int:
    """Most resident memory that this process has held (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(reader: str, path: Path) -> None:
    """Prints the bytes of text, the seconds and the memory of reading `path`, as JSON."""
    import pyarrow.parquet

    from llm_jax.data.sources import FileSource, LeftOut

    for _ in FileSource(path).documents(LeftOut()):  # its imports
        break
    before, begin = peak_bytes(), time.perf_counter()
    if reader == "reference":
        column = pyarrow.parquet.read_table(path, columns=["text"]).column("text")
        size = sum(len(one.as_py()) for one in column)
    else:
        size = sum(len(document.text) for document in FileSource(path).documents(LeftOut()))
    seconds = time.perf_counter() - begin
    print(json.dumps({"bytes": size, "seconds": seconds, "peak": peak_bytes() - before}))


def measured(reader: str, path: Path) -> dict[str, float]:
    words = [sys.executable, __file__, "--measure", reader, str(path)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--megabytes", type=float, default=25.0, help="of text in the smallest file"
    )
    parser.add_argument("--format", nargs="+", default=["parquet", "jsonl.zst", "csv"])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure[0], Path(args.measure[1]))
        return
    out = io.StringIO()
    print(f"{'file':<20}{'reader':<12}{'MB/s':>8}{'peak MB':>9}{'to 1 ×':>8}", file=out)
    with tempfile.TemporaryDirectory() as folder:
        for form in args.format:
            readers = ("reference", "FileSource") if form == "parquet" else ("FileSource",)
            first: dict[str, float] = {}
            for times in SIZES:
                path = Path(folder, f"{times}x.{form}")
                write(path, args.megabytes * times)
                for reader in readers:
                    found = measured(reader, path)
                    first.setdefault(reader, found["peak"])
                    rate = found["bytes"] / found["seconds"] / 1e6
                    print(
                        f"{path.name:<20}{reader:<12}{rate:>8.0f}{found['peak'] / 1e6:>9.1f}"
                        f"{found['peak'] / max(1, first[reader]):>8.2f}",
                        file=out,
                    )
                path.unlink()
    print(out.getvalue(), end="")


if __name__ == "__main__":
    main()
