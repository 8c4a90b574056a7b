"""Reads the .wandb file of an offline run: W&B's own records, in LevelDB's log format.

A 7-byte header (`:W&B`, a magic number, a version), then blocks of 32 KiB with chunks of (checksum 4 bytes, length 2,
kind 1): a record is one whole chunk, or a first, middle ones and a last.
"""

import json
import struct
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER, CHUNK_HEADER = 32768, 7, 7
WHOLE, FIRST, LAST = 1, 2, 4


def records(path: Path) -> list[Record]:
    """Every record of the file, oldest first."""
    raw = path.read_bytes()
    assert raw[:4] == b":W&B"
    found, position, parts = [], HEADER, b""
    while position + CHUNK_HEADER <= len(raw):
        left = BLOCK - position % BLOCK
        if left < CHUNK_HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", raw[position : position + CHUNK_HEADER])
        body = raw[position + CHUNK_HEADER : position + CHUNK_HEADER + length]
        position += CHUNK_HEADER + length
        parts = body if kind in (WHOLE, FIRST) else parts + body
        if kind in (WHOLE, LAST):
            found.append(Record.FromString(parts))
    return found


def values(items: Any) -> dict[str, Any]:
    """W&B's (key or nested key, JSON value) pairs as a dictionary; nested keys are joined by `/` as the metrics are."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
