"""The last reading of each sensor, in the document `latest`.

POST /{sensor} keeps the body, a JSON object with a `date`, unless a later one is there already. GET / gives all of
them. Two posts of one sensor at once may both look before either writes: the one that writes last is then kept.
"""

import json
import re

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import batch, store
from wit_world.imports.streams import InputStream, StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    Method_Post,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

DOCUMENT = "latest"
BODY_BYTES_MAX = 16 * 1024
WRITE_BYTES_MAX = 4096  # what `blocking-write-and-flush` takes at once
BATCH_KEYS = 50  # so that a batch of the largest bodies stays under what the platform gives at once
SENSOR = re.compile(r"/([A-Za-z0-9_-]{1,64})", re.ASCII)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        try:
            status, body = 200, self.answer(request)
        except Refusal as refusal:
            status, body = refusal.status, {"error": str(refusal)}
        except Err as error:
            status, body = 500, {"error": why(error.value)}
        answer(response_out, status, json.dumps(body) + "\n")

    def answer(self, request: IncomingRequest) -> dict:
        path = (request.path_with_query() or "/").split("?")[0]
        with store.open(DOCUMENT) as bucket:
            if not isinstance(request.method(), Method_Post):
                return latest(bucket)
            if not (match := SENSOR.fullmatch(path)):
                raise Refusal(404, f"`{path[:80]}` names no sensor")
            # Streams and bodies are handles of the host: `with` gives each back, children first.
            with request.consume() as body, body.stream() as stream:
                return keep(bucket, match[1], reading(stream))


class Refusal(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def keep(bucket: store.Bucket, sensor: str, new: dict) -> dict:
    old = bucket.get(sensor)
    if old is not None and json.loads(old)["date"] >= new["date"]:
        return {"kept": False}
    bucket.set(sensor, json.dumps(new).encode())
    return {"kept": True}


def latest(bucket: store.Bucket) -> dict:
    readings, cursor = {}, None
    while True:
        page = bucket.list_keys(cursor)
        for start in range(0, len(page.keys), BATCH_KEYS):
            found = batch.get_many(bucket, page.keys[start : start + BATCH_KEYS])
            readings.update((pair[0], json.loads(pair[1])) for pair in found if pair)
        if (cursor := page.cursor) is None:
            return readings


def reading(stream: InputStream) -> dict:
    text = b""
    try:
        while len(text) <= BODY_BYTES_MAX:
            text += stream.blocking_read(BODY_BYTES_MAX)
        raise Refusal(413, f"the reading is longer than {BODY_BYTES_MAX} bytes")
    except Err as error:
        # The end of a body is reported the way a failure is.
        if not isinstance(error.value, StreamError_Closed):
            raise
    try:
        parsed = json.loads(text)
    except ValueError:
        raise Refusal(400, "the reading is not JSON") from None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("date"), str):
        raise Refusal(400, "the reading is no object with a `date`")
    return parsed


def why(error: object) -> str:
    match error:
        case store.Error_AccessDenied():
            return f"deploy this function with `--document {DOCUMENT}`"
        case store.Error_NoSuchStore():
            return "this node keeps no documents"
        case store.Error_Other(message):
            return message
    return str(error)


def answer(response_out: ResponseOutparam, status: int, text: str) -> None:
    response = OutgoingResponse(Fields.from_list([("content-type", b"application/json")]))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    data = text.encode()
    with body.write() as stream:
        for start in range(0, len(data), WRITE_BYTES_MAX):
            stream.blocking_write_and_flush(data[start : start + WRITE_BYTES_MAX])
    OutgoingBody.finish(body, None)
