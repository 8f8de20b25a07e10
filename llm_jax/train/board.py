"""A TensorBoard event file, written without a library: those that write one import torch or
TensorFlow if they are installed, which takes a second of each start.

The file is a TFRecord of `Event` messages (tensorflow/core/util/event.proto) in protobuf's wire
format. A record is its length (8 bytes), the masked CRC-32C of that (4), the message, and the
masked CRC-32C of the message (4); integers are little-endian (TensorFlow, record_writer.h).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 10.0
VERSION = b"brain.Event:2"
VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5
"""Wire types of protobuf."""
POLYNOMIAL = 0x82F63B78
"""Castagnoli's, bits reversed."""


class Board:
    """Writes scalars for TensorBoard in the caller's thread, which so sees errors of the disk.

    Args:
      folder: is created; it gets a new file.
      start: TensorBoard drops what earlier files say of the steps after it.
    """

    def __init__(self, folder: Path, start: int) -> None:
        folder.mkdir(exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{now:.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._flushed = time.monotonic()
        began = _field(1, VARINT, 1)  # SessionLog.START
        self._event(0, _field(3, BYTES, VERSION))
        self._event(start + 1, _field(7, BYTES, began))

    def write(self, record: dict[str, Any]) -> None:
        """Adds the floats of a record of `metrics.jsonl` at its step, as `split/name`."""
        summary = b""
        for name, value in record.items():
            if isinstance(value, float) and name != "time":
                tag = f"{record['split']}/{name}".encode()
                summary += _field(1, BYTES, _field(1, BYTES, tag) + _field(2, FLOAT, value))
        self._event(record["step"], _field(5, BYTES, summary))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _event(self, step: int, what: bytes) -> None:
        event = _field(1, DOUBLE, time.time()) + _field(2, VARINT, step) + what
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))


def _field(number: int, kind: int, value: Any) -> bytes:
    """One field of a protobuf message: its number and wire type, and its value."""
    key = _varint(number << 3 | kind)
    if kind == VARINT:
        return key + _varint(value)
    if kind == BYTES:
        return key + _varint(len(value)) + value
    return key + struct.pack("<d" if kind == DOUBLE else "<f", value)


def _varint(value: int) -> bytes:
    """A number of at least 0, seven bits per byte, the lowest first."""
    groups = []
    while value >= 128:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _table() -> list[int]:
    """Remainders of all bytes."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


REMAINDERS = _table()


def _checksum(data: bytes) -> bytes:
    """The CRC-32C of `data`, masked as TFRecord has it: rotated right by 15, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ REMAINDERS[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)
