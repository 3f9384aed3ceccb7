"""Traces for the tests of the sandbox's page: traces of a shop, very large traces, and hostile
traces.

In: the time and the kind of traces. Out: segment documents as dictionaries. The ids are the same in
each run, so that screenshots of the page can be compared.
"""

import json
import random
from pathlib import Path

HEADER = b'{"format":"json","version":1}\n'

#: Markup and a script URL. The page must show them as plain text, wherever a document contains
#: them.
MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
SCRIPT_URL = "javascript:window.hacked=1"

#: The callees of each service: other services, databases (names with an @), and DynamoDB tables.
CALLERS = {
    "shop.example": ["inventory", "pricing", "payments", "users"],
    "inventory": ["stock@inventory-db"],
    "pricing": ["currency-rates"],
    "payments": ["fraud-check", "ledger@payments-db"],
    "users": ["Sessions"],
    "fraud-check": ["Scores"],
}
TABLES = {"Sessions", "Scores"}


def recorded(name):
    """Returns the document of a datagram that was recorded from a real SDK."""
    datagram = (Path(__file__).parent.parent / "segments" / name).read_bytes()
    return datagram.split(b"\n", 1)[1].decode()


def compact(document):
    """Returns the JSON of a document without spaces."""
    return json.dumps(document, separators=(",", ":"))


def parts(document):
    """Returns a list of a document and all its embedded subsegments."""
    found = [document]
    for part in found:
        found.extend(part.get("subsegments", []))
    return found


def forest(documents):
    """Returns the rows of a trace as the sandbox would answer. Only for documents that name their
    parents before themselves, and whose rows are in the order of the documents.
    """
    rows, by_id = [], {}

    def add(document, path, part, parent):
        row = {"document": document, "path": path, "name": part["name"], "id": part["id"]}
        row |= {"start": part["start_time"], "end": part["end_time"], "state": "ok", "service": 0}
        row["depth"] = 0 if parent is None else rows[parent]["depth"] + 1
        by_id[part["id"]] = len(rows)
        rows.append(row if parent is None else row | {"parent": parent})
        own = len(rows) - 1
        for position, child in enumerate(part.get("subsegments", [])):
            add(document, [*path, position], child, own)

    for index, document in enumerate(documents):
        add(index, [], document, by_id.get(document.get("parent_id")))
    rows[0]["is_segment"] = True
    counts = {"segment_count": 1, "omitted_count": 0, "skewed_count": 0}
    return {"rows": rows, "services": [rows[0]["name"]], "failed": None} | counts


class Ids:
    """Creates ids of traces and segments."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def segment(self):
        return f"{self.random.getrandbits(64):016x}"

    def trace(self, start):
        return f"1-{int(start):08x}-{self.random.getrandbits(96):024x}"


def named(name, start, **fields):
    """Returns a document with this name. It is the only document of its trace."""
    ids = Ids(name)
    return {
        "trace_id": ids.trace(start),
        "id": ids.segment(),
        "name": name,
        "start_time": start,
        "end_time": start + 0.1,
    } | fields


def http(method, url, status, **request):
    """Returns the value of a segment's field `http`."""
    return {"request": {"method": method, "url": url} | request, "response": {"status": status}}


def flags(code):
    """Returns the fields `error`, `fault` and `throttle` of a segment with this HTTP status."""
    found = {"fault": True} if code >= 500 else {"error": True} if code >= 400 else {}
    return found | ({"throttle": True} if code == 429 else {})


class Request:
    """The documents of one request to the shop, which calls all services. `failing` names the
    service that fails.
    """

    def __init__(
        self, ids, start, path="/checkout", method="GET", status=200, slow=1.0, failing=""
    ):
        self.ids, self.path, self.status = ids, path, status
        self.slow, self.failing = slow, failing
        self.trace_id = ids.trace(start)
        self.documents = []
        self._serve("shop.example", start, method, None)

    def _later(self, now, least, most):
        return now + self.slow * self.ids.random.uniform(least, most)

    def _serve(self, name, start, method, parent_id):
        """Adds the segment of a service, and returns its end and its status."""
        now, codes, calls = self._later(start, 0.002, 0.006), [200], []
        segment = {"trace_id": self.trace_id, "id": self.ids.segment(), "name": name}
        for called in CALLERS.get(name, []):
            if self.path == "/" and called == "payments":
                continue
            call, code = self._call(called, now)
            calls.append(call)
            codes.append(code)
            now = self._later(call["end_time"], 0.001, 0.004)
        if parent_id is None:
            end = self._later(now, 0.02, 0.08)
            calls.append(
                {"id": self.ids.segment(), "name": "render", "start_time": now, "end_time": end}
            )
            now = end
        end = self._later(now, 0.001, 0.004)
        code = 500 if name == self.failing else 502 if max(codes) >= 500 else max(codes)
        host = f"http://{name}.internal"
        if parent_id is None:
            host = f"https://{name}"
            code = self.status if code == 200 else code
        segment |= {
            "start_time": start,
            "end_time": end,
            "origin": "AWS::ECS::Container",
            "http": http(method, host + self.path, code, client_ip="192.0.2.7"),
            "aws": {"xray": {"sdk": "X-Ray for Python", "sdk_version": "2.15.0"}},
            "subsegments": calls,
        }
        segment |= flags(code) | ({"parent_id": parent_id} if parent_id else self._of_the_shop())
        if name == self.failing:
            segment["cause"] = self._cause()
        self.documents.append(segment)
        return end, code

    def _call(self, called, start):
        """Returns a call of a service, a table or a database, and its status."""
        call = {"id": self.ids.segment(), "name": called, "start_time": start}
        if "@" in called:
            return call | self._query(called, start), 200
        if called in TABLES:
            code = 429 if self.failing == called else 200
            return call | self._table(called, start, code) | flags(code), code
        method = "POST" if called in ("payments", "fraud-check") else "GET"
        end, code = self._serve(called, start + 0.002, method, call["id"])
        call |= {
            "namespace": "remote",
            "end_time": end + 0.002,
            "http": http(method, f"http://{called}.internal{self.path}", code),
        }
        return call | flags(code), code

    def _query(self, called, start):
        return {
            "namespace": "remote",
            "end_time": self._later(start, 0.01, 0.05),
            "sql": {
                "database_type": "PostgreSQL",
                "database_version": "16.4",
                "user": "app",
                "url": f"jdbc:postgresql://{called.split('@')[1]}:5432/main",
                "sanitized_query": "SELECT id, count FROM items WHERE item = ? FOR UPDATE",
            },
        }

    def _table(self, called, start, code):
        return {
            "name": "DynamoDB",
            "namespace": "aws",
            "end_time": self._later(start, 0.004, 0.02),
            "aws": {
                "operation": "GetItem",
                "table_name": called,
                "region": "eu-west-1",
                "request_id": self.ids.segment().upper(),
                "retries": 2 if code == 429 else 0,
            },
            "http": {"response": {"status": code}},
        }

    def _of_the_shop(self):
        chance = self.ids.random
        line = {"sku": "tea-12", "quantity": 2, "price": 4.5}
        return {
            "user": chance.choice(["ana", "bo", "chidi"]),
            "annotations": {
                "customer": chance.choice(["returning", "new"]),
                "items": chance.randint(1, 9),
            },
            "metadata": {"shop": {"cart": {"currency": "EUR", "lines": [line]}}},
        }

    def _cause(self):
        frames = [("charge", 88, "charge"), ("issuer", 41, "ask"), ("http", 210, "send")]
        exception = {
            "id": self.ids.segment(),
            "type": "UpstreamTimeout",
            "message": "the card issuer did not answer within 250 ms",
            "stack": [
                {"path": f"{self.failing}/{file}.py", "line": line, "label": label}
                for file, line, label in frames
            ],
        }
        return {"working_directory": f"/srv/{self.failing}", "exceptions": [exception]}


def shop(now, count=60, seed=1):
    """Returns the documents of `count` requests to the shop. They ran in the last minutes; the
    newest ends at `now`.
    """
    ids = Ids(seed)
    paths = [
        ("/", "GET"),
        ("/items/42", "GET"),
        ("/checkout", "POST"),
        ("/cart", "PUT"),
        ("/search?q=tea", "GET"),
    ]
    documents = []
    for index in range(count):
        path, method = paths[ids.random.choices(range(5), [5, 4, 3, 2, 3])[0]]
        what = {"path": path, "method": method, "slow": ids.random.lognormvariate(0, 0.5)}
        if index % 11 == 5:
            what |= {"path": "/checkout", "method": "POST", "failing": "payments"}
        elif index % 13 == 7:
            what |= {"failing": "Sessions"}
        elif index % 9 == 4:
            what |= {"status": 404, "path": f"/items/{9000 + index}", "method": "GET"}
        start = now - 1 - (count - index) * 3.7 - ids.random.uniform(0, 2)
        documents += Request(ids, start, **what).documents
    return documents


def service_graph(count, group_count=1, seed=5):
    """Returns the answer of GetServiceGraph for services in unconnected groups. Each group is a tree
    of calls with a few more calls in it.
    """
    chance = random.Random(seed)
    statistics = {"OkCount": 9, "TotalCount": 10, "TotalResponseTime": 1.5}
    statistics["FaultStatistics"] = {"TotalCount": 1}
    words = ["checkout", "inventory", "payments", "search", "user-profile", "notification"]
    services = []
    for index in range(count):
        name = f"{words[index % 6]}-{'service' if index % 3 else 'api.internal.example'}-{index}"
        services.append({"ReferenceId": index, "Name": name, "Type": "AWS::ECS::Container"})
        services[index] |= {"Edges": [], "SummaryStatistics": statistics}
        own = range(index % group_count, index, group_count)
        callers = {chance.choice(own[: max(1, len(own) // 2)])} if own else set()
        callers |= {chance.choice(own)} if own and chance.random() < 0.25 else set()
        for caller in callers:
            edge = {"ReferenceId": index, "SummaryStatistics": statistics}
            services[caller]["Edges"].append(edge)
    return {"Services": services}


def many(now, count, seed=2):
    """Returns one small document for each of `count` traces."""
    ids = Ids(seed)
    documents = []
    for index in range(count):
        start = now - count + index
        code = ids.random.choices([200, 404, 500, 429], [90, 4, 4, 2])[0]
        flags = {
            200: {},
            404: {"error": True},
            500: {"fault": True},
            429: {"error": True, "throttle": True},
        }[code]
        documents.append(
            {
                "trace_id": ids.trace(start),
                "id": ids.segment(),
                "name": f"service-{index % 7}",
                "start_time": start,
                "end_time": start + ids.random.lognormvariate(-3, 1),
                "http": http("GET", f"https://service.example/items/{index}", code),
                "annotations": {"index": index},
            }
            | flags
        )
    return documents


def wide(start, count=10_000, seed=3):
    """Returns one trace with `count` subsegments, in documents that stay below 64 kB."""
    ids = Ids(seed)
    trace_id, root = ids.trace(start), ids.segment()
    documents = [
        {
            "trace_id": trace_id,
            "id": root,
            "name": "wide",
            "start_time": start,
            "end_time": start + count / 1000,
        }
    ]
    for first in range(0, count, 200):
        batch = {
            "trace_id": trace_id,
            "id": ids.segment(),
            "parent_id": root,
            "type": "subsegment",
            "name": f"batch {first}",
            "start_time": start + first / 1000,
            "end_time": start + (first + 200) / 1000,
        }
        batch["subsegments"] = [
            {
                "id": ids.segment(),
                "name": f"item {index}",
                "start_time": start + index / 1000,
                "end_time": start + index / 1000 + 0.0008,
            }
            for index in range(first, min(first + 199, count))
        ]
        documents.append(batch)
    return documents


def hostile(start, seed=4):
    """Returns hostile traces by the kind of attack, for example markup in texts, huge values, or
    parents that form a ring.

    Traces under "refused" violate the published rules. The sandbox rejects them, but the page must
    not rely on that.
    """
    ids = Ids(seed)

    def document(**fields):
        return {
            "trace_id": ids.trace(start),
            "id": ids.segment(),
            "name": "hostile",
            "start_time": start,
            "end_time": start + 0.1,
        } | fields

    def part(**fields):
        return {
            "id": ids.segment(),
            "name": "part",
            "start_time": start,
            "end_time": start + 0.05,
        } | fields

    markup = document(
        user=MARKUP,
        origin=MARKUP,
        http=http(MARKUP, SCRIPT_URL, 500, user_agent=MARKUP),
        fault=True,
        aws={"operation": MARKUP, MARKUP: MARKUP},
        sql={"sanitized_query": MARKUP, "url": SCRIPT_URL},
        annotations={"markup": MARKUP, "__proto__": "x", "constructor": 1},
        metadata={MARKUP: {MARKUP: [MARKUP]}, "__proto__": {"polluted": True}},
        cause={
            "exceptions": [
                {
                    "id": "e",
                    "type": MARKUP,
                    "message": MARKUP,
                    "stack": [{"path": MARKUP, "line": MARKUP, "label": MARKUP}],
                }
            ]
        },
        links=[{"trace_id": MARKUP, "attributes": {MARKUP: SCRIPT_URL}}],
        subsegments=[part(namespace=MARKUP)],
    )
    huge = document(name="n" * 200, metadata={"list": list(range(5_000)), "text": "y" * 20_000})
    first, second, third = (ids.segment() for _ in range(3))
    ring_id = ids.trace(start)
    ring = [
        document(trace_id=ring_id, id=own, parent_id=parent, name=name)
        for own, parent, name in [
            (first, second, "ring-a"),
            (second, third, "ring-b"),
            (third, first, "ring-c"),
            (ids.segment(), first, "below"),
        ]
    ]
    alone = document(parent_id="0123456789abcdef", name="orphan", type="subsegment")
    deep = part()
    for level in range(40):
        deep = part(name=f"level {level}", subsegments=[deep])
    nested = document(subsegments=[deep])
    refused = [
        document(name=MARKUP, namespace=MARKUP),
        document(
            http=[],
            aws=1,
            sql="x",
            cause={"exceptions": {}},
            annotations=[1],
            metadata="text",
            links={"a": 1},
            service=[None],
            user={"a": 1},
            end_time=-1e300,
            subsegments=[1, None, [], {"name": 7, "start_time": "x"}],
        ),
        document(id=7, name=None, start_time=None, cause=[None], subsegments={"a": 1}),
        document(name="n" * 30_000, start_time=1e308, end_time=1e308),
        document(subsegments=[part(name="\u202eexe.cod\u0007\u2066\u200b end")]),
    ]
    return {
        "markup": [markup],
        "huge": [huge],
        "ring": ring,
        "alone": [alone],
        "nested": [nested],
        "refused": refused,
    }
