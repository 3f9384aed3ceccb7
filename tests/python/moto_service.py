"""The X-Ray service as moto plays it, as a program.

In: the calls of the API, on a free port that it prints. Out: what the service would answer. It
takes one request at a time, because moto loses segments of a trace that two requests begin at
once: each makes the trace's entry in `SegmentCollection._traces`, and the later one stays.
"""

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

application = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, application, request_handler=MotoRequestHandler)
print(f"Listening on TCP 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
