"""Records what an exporter of OpenTelemetry sends to a port, and changes nothing.

In: the bytes of connections over HTTP/1.1, or over HTTP/2 without TLS (gRPC). Out: the same bytes to
the port, and the bodies of the requests in them, not compressed, for the test; and the spans in such
a body, to compare them.
"""

import gzip
import http.client
import io
import socket
import threading
import zlib
from contextlib import suppress

#: The first bytes of each connection over HTTP/2.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: The type of a frame of HTTP/2 with a body, and the flag that says that it is padded.
DATA, PADDED = 0, 8

DECODERS = {"gzip": gzip.decompress, "deflate": zlib.decompress, "identity": bytes}


class OtlpTap:
    """Passes connections on to `target` within its `with` block."""

    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        #: The address for the exporter.
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._connections, self._threads = [], []

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        # Wakes the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server, sent = socket.create_connection(self._target), bytearray()
            self._connections.append(sent)
            self._start(self._pass_on, client, server, sent)
            self._start(self._pass_on, server, client, bytearray())

    @staticmethod
    def _pass_on(source, target, copy):
        # Either side may close or reset its connection at any time.
        with suppress(OSError):
            while piece := source.recv(65_536):
                # Before it is passed on: what was answered is in the copy.
                copy += piece
                target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def bodies(self):
        """Returns the bodies of all requests that were passed on, not compressed."""
        return [
            body
            for sent in self._connections
            for body in (messages(sent) if sent.startswith(PREFACE) else requests(sent))
        ]


def spans_of(request):
    """Returns the bytes of the spans in a request, each with its resource and scope."""
    return [
        (
            resource_spans.resource.SerializeToString(),
            scope_spans.scope.SerializeToString(),
            span.SerializeToString(),
        )
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def requests(sent):
    """Returns the bodies of the requests of a connection over HTTP/1.1."""
    stream, bodies = io.BytesIO(sent), []
    while stream.readline():
        headers = http.client.parse_headers(stream)
        if headers["Transfer-Encoding"] == "chunked":
            body = b"".join(chunks(stream))
        else:
            body = stream.read(int(headers["Content-Length"]))
        bodies.append(DECODERS[headers.get("Content-Encoding", "identity")](body))
    return bodies


def chunks(stream):
    """Reads the chunks of a body."""
    while length := int(stream.readline(), 16):
        yield stream.read(length)
        stream.readline()
    stream.readline()


def messages(sent):
    """Returns the messages of the calls of a connection over HTTP/2. Each call of an exporter has
    one message, compressed with gzip or not.
    """
    stream, calls = io.BytesIO(sent[len(PREFACE) :]), {}
    while head := stream.read(9):
        payload = stream.read(int.from_bytes(head[:3]))
        if head[3] == DATA:
            if head[4] & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            calls[head[5:]] = calls.get(head[5:], b"") + payload
    bodies = []
    for call in calls.values():
        is_compressed, length, body = call[0], int.from_bytes(call[1:5]), call[5:]
        assert len(body) == length
        bodies.append(gzip.decompress(body) if is_compressed else body)
    return bodies
