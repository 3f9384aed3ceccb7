"""Prints documents, and what Python's json finds in them, for a test of the daemon's parser.

In: a seed and a number of documents. Out: one line for each document with four words: the document
in hexadecimal; `object`, `other` (other JSON), `text` (no JSON) or `bytes` (no UTF-8); the trace
id; the id. An id is in hexadecimal, with lone surrogates as three bytes, or `-` if there is none.
The same seed prints the same documents. Most documents are JSON by the grammar of RFC 8259, with
numbers and strings that parsers often refuse; in others a few characters are changed.
"""

import json
import random
import sys

KEYS = [
    '"trace_id"',
    '"id"',
    r'"trace\u005fid"',
    r'"\u0069\u0064"',
    r'"trace_id\ud800"',
    '"ID"',
    '"metadata"',
    '"\\ud83d"',
    '""',
    '"é"',
]
NUMBERS = [
    "0",
    "-0",
    "0e99999999999",
    "1E+2",
    "-1.5e-3",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "-9223372036854775809",
    "123456789012345678901234567890123456789",
    "1e308",
    "1e309",
    "-1e400",
    "1e-400",
    "1.7976931348623157e308",
    "1e99999999999999999999",
    "-1e-99999999999999999999",
    "0." + "0" * 400 + "1e410",
    "9" * 400,
    "1" + "0" * 400 + "e-390",
]
PIECES = [
    "a",
    "1-581cf771-a006649127e371903a2de979",
    "70de5b6f19ff9a0a",
    "é",
    "😀",
    "\u2028",
    "\x7f",
    r"\"",
    r"\\",
    r"\/",
    r"\n",
    r"\u0000",
    r"\u00E9",
    r"\ud83d\ude00",
    r"\ud83d",
    r"\uDE00",
    r"\ud83d\u0041",
    r"\udbff\udbff\udfff",
]
#: What a change puts into a document.
CHARACTERS = [*'{}[]:,"\\ud8f0e1.-+tx \n', "\x00", "\ufeff", "\xa0", "null", "NaN", "Infinity"]


def string(rng):
    return '"' + "".join(rng.choices(PIECES, k=rng.randrange(4))) + '"'


def space(rng):
    return rng.choice(["", "", "", " ", "\t", "\r\n"])


def value(rng, depth):
    kind = rng.randrange(9 if depth else 7)
    if kind == 7:
        items = [value(rng, depth - 1) for _ in range(rng.randrange(4))]
        return "[" + ",".join(space(rng) + item + space(rng) for item in items) + "]"
    if kind == 8:
        return an_object(rng, depth - 1)
    if kind > 3:
        return string(rng)
    if kind:
        return rng.choice(NUMBERS)
    return rng.choice(["true", "false", "null"])


def an_object(rng, depth):
    fields = []
    for _ in range(rng.randrange(6)):
        [key] = rng.choices(KEYS, weights=[4, 4, 2] + [1] * (len(KEYS) - 3))
        held = string(rng) if "id" in key and rng.random() < 0.6 else value(rng, depth)
        fields.append(space(rng) + key + space(rng) + ":" + space(rng) + held + space(rng))
    return "{" + ",".join(fields) + "}"


def changed(rng, text):
    """Returns the text with one to three changes."""
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(text) + 1)
        removed = rng.choice([0, 0, 1, 1, 4])
        text = text[:at] + rng.choice(["", *CHARACTERS]) + text[at + removed :]
    return text


def document(rng):
    """Returns the bytes of a document."""
    text = space(rng) + (an_object(rng, 4) if rng.random() < 0.9 else value(rng, 4)) + space(rng)
    if rng.random() < 0.4:
        text = changed(rng, text)
    encoded = text.encode()
    if rng.random() < 0.05:
        at = rng.randrange(len(encoded) + 1)
        encoded = encoded[:at] + rng.choice([b"\xff", b"\xc3", b"\xed\xa0\xbd"]) + encoded[at:]
    # A datagram without a document is no segment.
    return encoded or b" "


def no_constant(name):
    raise ValueError(f"{name} is not JSON")


def found(text):
    """Returns the kind of the JSON text, its trace id and its id."""
    try:
        # The value of a number does not matter, and Python limits the digits of an int.
        parsed = json.loads(text, parse_int=len, parse_float=len, parse_constant=no_constant)
    except ValueError:
        return "text", "-", "-"
    if not isinstance(parsed, dict):
        return "other", "-", "-"
    return "object", *(hexadecimal(parsed.get(key)) for key in ("trace_id", "id"))


def hexadecimal(value):
    text = value if isinstance(value, str) else ""
    return text.encode("utf-8", "surrogatepass").hex() or "-"


def main(seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        encoded = document(rng)
        try:
            kind, trace_id, id = found(encoded.decode())
        except UnicodeDecodeError:
            _, trace_id, id = found(encoded.decode(errors="replace"))
            kind = "bytes"
        print(encoded.hex(), kind, trace_id, id)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
