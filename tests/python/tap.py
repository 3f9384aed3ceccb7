"""Records the datagrams between an SDK and the daemon.

In: the SDK's datagrams, on a separate UDP port. Out: the same datagrams to the daemon, and a copy
of each for the test. The kernel keeps the order of datagrams: the datagrams of an SDK that has
ended arrive before the empty datagram that `finish` sends.
"""

import json
import socket
import threading

#: The value of the header line. SDKs write it with different spaces.
HEADER = {"format": "json", "version": 1}

#: The same as the SDKs for Python and Node.js write it.
HEADER_LINE = b'{"format":"json","version":1}\n'


class Tap:
    """Forwards datagrams to `target` within its `with` block."""

    def __init__(self, target):
        self._target = target
        self._datagrams = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # Asks for a socket queue of 1 MB, for bursts. The kernel may grant less.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
        self._socket.bind(("127.0.0.1", 0))
        #: The address that the SDK sends to.
        self.udp = self._socket.getsockname()
        self._thread = threading.Thread(target=self._forward, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end()
        self._socket.close()

    def _forward(self):
        while True:
            datagram, source = self._socket.recvfrom(65_536)
            if source == self.udp:
                return
            self._datagrams.append(datagram)
            self._socket.sendto(datagram, self._target)

    def _end(self):
        self._socket.sendto(b"", self.udp)
        self._thread.join()

    def finish(self):
        """Returns the documents of all recorded datagrams, as text."""
        self._end()
        parts = [datagram.partition(b"\n") for datagram in self._datagrams]
        assert all(json.loads(line) == HEADER for line, _, _ in parts), self._datagrams
        return [document.decode() for _, _, document in parts]
