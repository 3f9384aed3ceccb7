"""The X-Ray service as implemented by moto, as a program.

In: calls of the API, on a free port that the program prints. Out: the service's answers. The
program handles one request at a time, because moto loses segments if two requests start the same
trace at the same time: each request creates an entry in `SegmentCollection._traces`, and the later
entry replaces the earlier one.
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
