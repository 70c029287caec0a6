"""Greets whom the request's body names."""

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam

BODY_BYTES_MAX = 1024


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        body = read(request)
        if len(body) > BODY_BYTES_MAX:
            answer(response_out, 413, f"the name is longer than {BODY_BYTES_MAX} bytes\n")
        else:
            answer(response_out, 200, greeting(body.decode(errors="replace")))


def greeting(name: str) -> str:
    return f"hello, {name.strip() or 'edge'}\n"


def read(request: IncomingRequest) -> bytes:
    """The body, or a little more than its bound of a longer one."""
    data = b""
    # Streams and bodies are handles of the host: `with` gives each back, children first.
    with request.consume() as body, body.stream() as stream:
        try:
            while len(data) <= BODY_BYTES_MAX:
                data += stream.blocking_read(BODY_BYTES_MAX)
        except Err as error:
            # The end of a body is reported the way a failure is.
            if not isinstance(error.value, StreamError_Closed):
                raise
    return data


def answer(response_out: ResponseOutparam, status: int, text: str) -> None:
    response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
    response.set_status_code(status)
    body = response.body()
    # The response goes out before its body is written: the host reads from the other end.
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        stream.blocking_write_and_flush(text.encode())  # at most 4096 bytes at once
    OutgoingBody.finish(body, None)
