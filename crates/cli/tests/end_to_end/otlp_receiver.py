"""A receiver of OTLP made of OpenTelemetry's own protocol definitions (the package `opentelemetry-proto`), for tests.

usage: otlp_receiver.py PORT [CHAIN KEY]

It prints the port it listens at, and then each request as one line of JSON. What its definitions do not know is a failure, which the line
says and the answer is 400. With files of a certificate and its key it takes TLS.
"""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def check(message):
    """Fails for fields that the definitions do not know, in whatever depth."""
    unknown = len(UnknownFieldSet(message))
    if unknown:
        raise ValueError(f"{unknown} unknown fields in {message.DESCRIPTOR.full_name}")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if not hasattr(value, "ListFields") else [value]:
                check(each)


def attributes(pairs):
    found = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
    assert len(found) == len(pairs), "an attribute is there twice"
    return found


def span(resource, each):
    assert len(each.trace_id) == 16 and len(each.span_id) == 8 and len(each.parent_span_id) in (0, 8)
    return {
        "resource": resource,
        "trace": each.trace_id.hex(),
        "id": each.span_id.hex(),
        "parent": each.parent_span_id.hex(),
        "name": each.name,
        "kind": Span.SpanKind.Name(each.kind),
        "flags": each.flags,
        "began": each.start_time_unix_nano,
        "ended": each.end_time_unix_nano,
        "attributes": attributes(each.attributes),
        "status": Status.StatusCode.Name(each.status.code),
        "why": each.status.message,
    }


def point(each):
    found = {"attributes": attributes(each.attributes), "began": each.start_time_unix_nano, "at": each.time_unix_nano}
    if each.DESCRIPTOR.name == "HistogramDataPoint":
        assert each.count == sum(each.bucket_counts) and len(each.bucket_counts) == len(each.explicit_bounds) + 1
        return {**found, "count": each.count, "sum": each.sum, "buckets": list(each.bucket_counts)}
    return {**found, "value": getattr(each, each.WhichOneof("value"))}


def metric(resource, each):
    kind = each.WhichOneof("data")
    data = getattr(each, kind)
    return {
        "resource": resource,
        "name": each.name,
        "unit": each.unit,
        "kind": kind,
        "is_monotonic": getattr(data, "is_monotonic", None),
        "temporality": getattr(data, "aggregation_temporality", None),
        "points": [point(each) for each in data.data_points],
    }


def read(path, body):
    if path == "/v1/traces":
        request = traces.ExportTraceServiceRequest.FromString(body)
        check(request)
        found = [
            span(attributes(of.resource.attributes), each)
            for of in request.resource_spans
            for scope in of.scope_spans
            for each in scope.spans
        ]
        return {"spans": found}, traces.ExportTraceServiceResponse()
    if path == "/v1/metrics":
        request = metrics.ExportMetricsServiceRequest.FromString(body)
        check(request)
        found = [
            metric(attributes(of.resource.attributes), each)
            for of in request.resource_metrics
            for scope in of.scope_metrics
            for each in scope.metrics
        ]
        return {"metrics": found}, metrics.ExportMetricsServiceResponse()
    raise ValueError(f"nothing is at {path}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        status, answer = 200, b""
        try:
            assert self.headers["content-type"] == "application/x-protobuf"
            told, response = read(self.path, body)
            answer = response.SerializeToString()
        except Exception as error:
            status, told = 400, {"failure": repr(error)}
        told["tenant"] = self.headers["x-tenant"]
        # In one piece, as there are many threads.
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    # The handshake is the thread's of the connection.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
