"""The numbered documents.

In: a number and a kind. Out: the text of the document, always the same. The number is in the
segment's id. Sizes are from 250 bytes to 30 kB.
"""

import zlib

#: The kinds of documents: the service takes it; it refuses every request that contains it; it takes
#: the request but names the document as unprocessed.
GOOD, POISON, UNPROCESSED = range(3)

#: One of so many documents is poison, and one of so many is unprocessed.
BAD_ONE_IN = 701

HEADER = b'{"format": "json", "version": 1}\n'

#: Characters that are escaped in a request body, and characters of two to four bytes.
_FILLER = 'abc \\" \\\\ / \\n \\u0000 {}[] äöü € 𝄞 0123456789 ' * 1000

_START = '{{"id":"{:016x}","trace_id":"1-6745c000-{:024x}","name":"{}","start_time":1,"x":"'
_NAMES = ("orders", "poison", "unprocessed")


def drawn_kind(number):
    """Returns the kind of a document that is drawn from its number."""
    return {0: POISON, 1: UNPROCESSED}.get(zlib.crc32(b"kind %d" % number) % BAD_ONE_IN, GOOD)


def document(number, kind):
    """Returns the text of a document."""
    lot = zlib.crc32(b"%d" % number)
    size = 15_000 if lot % 97 == 0 else 150 + lot % 1500
    # A filler must not end within an escape: the slice ends before a space.
    end = _FILLER.index(" ", size)
    start = _START.format(number, number // 3, _NAMES[kind])
    return start + _FILLER[:end] + '"}'


def number_of(text):
    """Returns the number in the text of a document, or None."""
    try:
        return int(text[7:23], 16)
    except ValueError:
        return None


def segment_id(number):
    """Returns the segment id of a document."""
    return f"{number:016x}"
