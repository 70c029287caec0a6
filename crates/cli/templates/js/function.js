// Greets whom the request's body names.

import { Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from 'wasi:http/types@0.2.10';

const BODY_BYTES_MAX = 1024;

export const incomingHandler = {
  handle(request, responseOut) {
    const body = read(request);
    if (body.length > BODY_BYTES_MAX) {
      answer(responseOut, 413, `the name is longer than ${BODY_BYTES_MAX} bytes\n`);
    } else {
      answer(responseOut, 200, greeting(new TextDecoder().decode(body)));
    }
  },
};

function greeting(name) {
  return `hello, ${name.trim() || 'edge'}\n`;
}

// The body, or a little more than its bound of a longer one.
function read(request) {
  const body = request.consume();
  const stream = body.stream();
  const bytes = [];
  try {
    while (bytes.length <= BODY_BYTES_MAX) bytes.push(...stream.blockingRead(BigInt(BODY_BYTES_MAX)));
  } catch (error) {
    // The end of a body is reported the way a failure is.
    if (error.payload?.tag !== 'closed') throw error;
  } finally {
    // Both are handles of the host, and the stream is a child of the body: it goes first.
    stream[Symbol.dispose]();
    body[Symbol.dispose]();
  }
  return Uint8Array.from(bytes);
}

function answer(responseOut, status, text) {
  const encoder = new TextEncoder();
  const response = new OutgoingResponse(Fields.fromList([['content-type', encoder.encode('text/plain')]]));
  response.setStatusCode(status);
  const body = response.body();
  // The response goes out before its body is written: the host reads from the other end.
  ResponseOutparam.set(responseOut, { tag: 'ok', val: response });
  const stream = body.write();
  stream.blockingWriteAndFlush(encoder.encode(text)); // at most 4096 bytes at once
  stream[Symbol.dispose]();
  OutgoingBody.finish(body, undefined);
}
