"""The format of the spool's files, written once more from src/pipeline/spool/record.rs.

In: the folder of a spool. Out: the documents of each record that are not settled. The test
does not ask the daemon what is in its spool.
"""

import json
import zlib
from contextlib import suppress
from pathlib import Path

from documents import number_of

FILE_MAGIC = b"xrayspl1"
RECORD_MAGIC = b"\xffxr1"
HEADER_BYTES = 28
#: Offset, length, id with its length, trace id with its length.
TABLE_ENTRY_BYTES = 4 + 4 + 17 + 36
PROGRESS_ENTRY_BYTES = 12


def _number(data, at, size=4):
    return int.from_bytes(data[at : at + size], "little")


def _settled(path):
    """Returns the offsets and marks in a progress file whose entries are intact."""
    data = path.read_bytes() if path.exists() else b""
    places = range(0, len(data) - PROGRESS_ENTRY_BYTES + 1, PROGRESS_ENTRY_BYTES)
    entries = [data[at : at + PROGRESS_ENTRY_BYTES] for at in places]
    return {_number(it, 0, 8) for it in entries if zlib.crc32(it[:8]) == _number(it, 8)}


def _payload(data, at):
    """Returns the number of segments and the payload of the record at an offset. The payload is
    None if it is torn. Returns None if there is no record.
    """
    header = data[at : at + HEADER_BYTES]
    is_header = len(header) == HEADER_BYTES and header.startswith(RECORD_MAGIC)
    if not is_header or zlib.crc32(header[:24]) != _number(header, 24):
        return None
    payload = data[at + HEADER_BYTES : at + HEADER_BYTES + _number(header, 4)]
    is_whole = zlib.crc32(payload) == _number(header, 20)
    return _number(header, 8), payload if is_whole else None


def documents_in(folder):
    """Returns the documents of each record that are not settled, and the number of segments in
    records that are torn.
    """
    records, torn_count = [], 0
    for path in sorted(Path(folder).glob("*.spool")):
        data, settled = path.read_bytes(), _settled(path.with_suffix(".done"))
        at = len(FILE_MAGIC)
        while at < len(data):
            record = _payload(data, at)
            if record is None:
                following = data.find(RECORD_MAGIC, at + 1)
                at = following if following >= 0 else len(data)
                continue
            count, payload = record
            if payload is None:
                torn_count += count
                at += HEADER_BYTES
                continue
            assert _number(payload, 0, 2) == count, f"{path}: a record with a wrong count"
            texts = json.loads(payload[2 + count * TABLE_ENTRY_BYTES :])["TraceSegmentDocuments"]
            marks = [at + (index + 1) * HEADER_BYTES for index in range(count)]
            if at not in settled:
                pairs = zip(texts, marks, strict=True)
                records.append([number_of(text) for text, mark in pairs if mark not in settled])
            at += HEADER_BYTES + len(payload)
    return records, torn_count


def size_of(folder):
    """Returns the size of all data files in bytes."""
    size = 0
    for path in Path(folder).glob("*.spool"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
