"""The cases of the comparison with a peer: header lines of datagrams.

In: a seed. Out: header lines as bytes, each with its class. A header line is accepted if the
document after it arrives at the service.
"""

import random

SEED = 18

FORMATS = [
    '"json"', '"JSON"', '"Json"', '"jSoN"', '"xml"', '""', '" json"', '"json "', '"jso"', '"jsonx"',
    "json", "'json'", "null", "true", "1", '["json"]', '{"json":1}', '"\\u006ason"', '"js\\u006Fn"',
    '"js\\on"', '"json\\u0000"', '"\\ud800"', '"j\u017fon"', '"j\\u017fon"', '"js\u00f6n"', "",
]  # fmt: skip
VERSIONS = [
    "1", "1.0", "1.5", "0", "2", "-1", "-0", "+1", "01", "1e0", "10e-1", "1E0", '"1"', "null",
    "true", "false", "[1]", "{}", "0x1", "1_", "1.", ".1", "18446744073709551617",
    "9223372036854775808", "99999999999999999999999999", "1e400", "1 ", " 1", "NaN", "",
]  # fmt: skip
FORMAT_KEYS = [
    '"format"', '"Format"', '"FORMAT"', '"fOrMaT"', '"for\\u006dat"', '"format "', '" format"',
    "format", "'format'", '"formats"', '"forma"', '"FORMA\\u0054"', '"\\ud800format"',
]  # fmt: skip
VERSION_KEYS = [
    '"version"', '"Version"', '"VERSION"', '"vErSiOn"', '"v\\u0065rsion"', '"version "',
    '"ver\u017fion"', '"ver\\u017fion"', '"versions"', "version", '"versio"', '"\\u0056ERSION"',
]  # fmt: skip
EXTRAS = [
    '"x":1', '"x":null', '"x":{"a":[1,{"b":null}]}', '"x":"\\ud800"', '"\\ud800":1', '"":1',
    '"x":1e999', '"x":99999999999999999999999', '"x":-0.0e-0', '"x":"\\n\\t\\u0000"', '"x":[]',
    '"x":"\u00fc\U0001f600"', '"x":01', '"x":.5', '"x":"a\tb"', '"x":tru', '"x"', '"x":', "x:1",
    '"x":1,', '"format ":1', '"x":"\\x"', '"x":"\\u12"', '"x":"a"b"', '"x":NaN', '"x":"',
]  # fmt: skip
ENDS = ["", "\r", " ", "\t", "\r\r", " x", "}", ",", "\0", "\x0b", "\x0c", "\u00a0", "\u2028", ";",
        "//", "{}", "null", '{"format":"json","version":1}', "\x1f", "\u0085"]  # fmt: skip
STARTS = ["", " ", "\t", "\r", "\ufeff", "\0", "x", "[", ",", "\x0b", "\u00a0", "{", '"', "\x1e"]
WHOLE = [
    "", "{}", "null", "[]", '""', "1", "true", "{", "}", '{"format"', '{"format":', '{"format":"json"',
    '{"format":"json",', '{"format":"json","version"', '{"format":"json","version":1',
    '["json",1]', '{"json":1}', "format=json version=1", '{"version":1,"format":"json"}',
    '{"format":"json","version":1}}', '{{"format":"json","version":1}}', "{}{}", "GET / HTTP/1.1",
    "T1S", '{"trace_id":"1-2-3"}', '[{"format":"json","version":1}]', '"{\\"format\\":1}"',
]  # fmt: skip


def line(format_key='"format"', form='"json"', version_key='"version"', version="1"):
    """Returns a header line of these parts."""
    return f"{{{format_key}:{form},{version_key}:{version}}}"


def plain_cases():
    """Returns the cases in which one part differs from the header of the SDKs."""
    for form in FORMATS:
        yield "format", line(form=form)
    for version in VERSIONS:
        yield "version", line(version=version)
    for key in FORMAT_KEYS:
        yield "key", line(format_key=key)
    for key in VERSION_KEYS:
        yield "key", line(version_key=key)
    for extra in EXTRAS:
        yield "extra key", line()[:-1] + "," + extra + "}"
        yield "extra key", "{" + extra + "," + line()[1:]
    for end in ENDS:
        yield "end", line() + end
    for start in STARTS:
        yield "start", start + line()
    for text in WHOLE:
        yield "whole", text
    for depth in (1, 10, 100, 127, 128, 129, 1000, 3000):
        yield "depth", line()[:-1] + ',"x":' + "[" * depth + "]" * depth + "}"
        yield "depth", line()[:-1] + ',"x":' + "[" * depth + "}"
        if depth < 1001:
            yield "depth", line()[:-1] + ',"x":' + '{"a":' * depth + "1" + "}" * depth + "}"
    for number in range(1, 256):
        byte = bytes([number])
        if byte != b"\n":
            yield "byte in a value", line()[:-1].encode() + b',"x":"a' + byte + b'b"}'
            yield "byte in a key", line()[:-1].encode() + b',"a' + byte + b'b":1}'
            yield "byte between", line().encode()[:-1] + byte + b"}"
            yield "byte in the format", b'{"format":"json' + byte + b'","version":1}'


def repeated_cases(choose, count):
    """Returns cases in which keys are repeated."""
    for _ in range(count):
        parts = []
        for _ in range(choose.randint(2, 5)):
            if choose.random() < 0.5:
                parts.append(f"{choose.choice(FORMAT_KEYS[:5])}:{choose.choice(FORMATS[:24])}")
            else:
                parts.append(f"{choose.choice(VERSION_KEYS[:5])}:{choose.choice(VERSIONS[:18])}")
        if choose.random() < 0.7:
            parts.insert(choose.randrange(len(parts) + 1), '"format":"json"')
            parts.insert(choose.randrange(len(parts) + 1), '"version":1')
        yield "repeated key", "{" + ",".join(parts) + "}"


def spaced_cases(choose, count):
    """Returns cases with spaces between the parts."""
    spaces = ["", "", " ", "  ", "\t", "\r", " \t\r", "\x0b", "\u00a0"]
    for _ in range(count):
        tokens = ["{", '"format"', ":", '"json"', ",", '"version"', ":", "1", "}"]
        kinds = spaces[: 7 if choose.random() < 0.8 else 9]
        yield (
            "spaces",
            "".join(choose.choice(kinds) + token for token in tokens) + choose.choice(kinds),
        )


def mutated_cases(choose, count):
    """Returns cases in which a few bytes of a good header are changed."""
    alphabet = b'{}[]":, \t\r01.-+eEabfjnorsuvx\\/\0\xff\xc3\xa9'
    good = [line().encode(), b'{"format": "json", "version": 1}', b'{"version":1,"format":"json"}']
    for _ in range(count):
        header = bytearray(choose.choice(good))
        for _ in range(choose.randint(1, 2)):
            place = choose.randrange(len(header) + 1)
            if choose.random() < 0.4:
                header.insert(place, choose.choice(alphabet))
            elif place < len(header):
                if choose.random() < 0.5:
                    header[place] = choose.choice(alphabet)
                else:
                    del header[place]
        yield "mutated", bytes(header)


def headers():
    """Returns all cases, the same ones each time: class and header line."""
    choose = random.Random(SEED)
    found = [*plain_cases(), *repeated_cases(choose, 600), *spaced_cases(choose, 250)]
    found += mutated_cases(choose, 800)
    encode = lambda text: text if isinstance(text, bytes) else text.encode()
    found = [(name, encode(text)) for name, text in found if b"\n" not in encode(text)]
    return list({text: (name, text) for name, text in reversed(found)}.values())[::-1]
