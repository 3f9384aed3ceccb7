"""The X-Ray service as the tests use it, through boto3.

In: the address of the service. Out: boto3's client for this service, and the documents that moto
has stored.
"""

import urllib.request
from datetime import UTC, datetime, timedelta

import boto3
from processes import ACCESS_KEY, PATIENCE_SECONDS, REGION, SECRET_KEY

#: The largest number of documents in one call, as the real service allows.
DOCUMENT_COUNT_MAX = 50


def xray_client(url, access_key=ACCESS_KEY, secret_key=SECRET_KEY):
    """Returns boto3's client for the service at `url`."""
    return boto3.client(
        "xray",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )


def put_documents(url, texts, access_key, secret_key):
    """Sends documents with PutTraceSegments. Fails if a document is unprocessed."""
    client = xray_client(url, access_key, secret_key)
    for first in range(0, len(texts), DOCUMENT_COUNT_MAX):
        batch = texts[first : first + DOCUMENT_COUNT_MAX]
        answer = client.put_trace_segments(TraceSegmentDocuments=batch)
        assert answer["UnprocessedTraceSegments"] == []


class Service:
    """The X-Ray service as implemented by moto."""

    def __init__(self, url):
        self.url = url
        self._client = xray_client(url)

    def forget(self):
        """Deletes all traces."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()

    def documents(self):
        """Returns all documents of all traces, as text."""
        now, hour = datetime.now(UTC), timedelta(hours=1)
        answer = self._client.get_trace_summaries(StartTime=now - hour, EndTime=now + hour)
        trace_ids = [summary["Id"] for summary in answer["TraceSummaries"]]
        answer = self._client.batch_get_traces(TraceIds=trace_ids)
        assert not answer["UnprocessedTraceIds"] and "NextToken" not in answer, answer
        return [part["Document"] for trace in answer["Traces"] for part in trace["Segments"]]
