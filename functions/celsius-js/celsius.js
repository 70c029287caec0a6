// Fahrenheit CSV in, Celsius CSV out, with the columns in the order they came.
//
// The whole body is read before the answer starts, so that a bad line can still make it a 400; what
// one instance can be made to hold is bounded by refusing long bodies.

import { Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from 'wasi:http/types@0.2.10';

const CHUNK_BYTES = 65536n;
const BODY_BYTES_MAX = 4 * 1024 * 1024;
const WRITE_BYTES_MAX = 4096; // what `blockingWriteAndFlush` takes at once
const DATE = /^\d{4}\/(0[1-9]|1[0-2])\/(0[1-9]|[12]\d|3[01]) ([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$/;
const TEMPERATURE = /^-?\d{1,4}(\.\d{1,6})?$/;

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const incomingHandler = {
  handle(request, responseOut) {
    try {
      answer(responseOut, 200, 'text/csv', toCelsius(readText(request)));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      answer(responseOut, error.status, 'text/plain', `${error.message}\n`);
    }
  },
};

function toCelsius(csv) {
  const [header, ...lines] = csv.split(/\r?\n/);
  if (header !== 'date,temp' && header !== 'temp,date') {
    throw new Refusal(400, `line 1: expected the header \`date,temp\` or \`temp,date\`, found \`${header.slice(0, 80)}\``);
  }
  const tempAt = header === 'date,temp' ? 1 : 0;

  const converted = lines.map((line, index) => {
    if (line === '') return '';
    const fail = (reason) => {
      throw new Refusal(400, `line ${index + 2}: ${reason}`);
    };
    const columns = line.split(',');
    if (columns.length !== 2) fail('expected two columns');
    const [date, temp] = [columns[1 - tempAt], columns[tempAt]];
    if (!DATE.test(date)) fail(`\`${date}\` is no date-time such as \`2010/01/31 23:00\``);
    if (!TEMPERATURE.test(temp)) fail(`\`${temp}\` is no temperature`);
    // `toFixed` alone would print "-0.0" for what rounds to zero from below.
    columns[tempAt] = (Math.round(((Number(temp) - 32) / 1.8) * 10) / 10).toFixed(1);
    return columns.join(',');
  });
  return [header, ...converted].join('\n');
}

function readText(request) {
  const body = request.consume();
  const stream = body.stream();
  const decoder = new TextDecoder();
  let text = '';
  let bytesRead = 0;
  try {
    for (;;) {
      const chunk = stream.blockingRead(CHUNK_BYTES);
      bytesRead += chunk.length;
      if (bytesRead > BODY_BYTES_MAX) throw new Refusal(413, `the body is longer than ${BODY_BYTES_MAX} bytes`);
      text += decoder.decode(chunk, { stream: true });
    }
  } catch (error) {
    // The end of a body is reported the way a failure is.
    if (error.payload?.tag !== 'closed') throw error;
  } finally {
    // Both are handles of the host, and the stream is a child of the body: it goes first.
    stream[Symbol.dispose]();
    body[Symbol.dispose]();
  }
  return text + decoder.decode();
}

function answer(responseOut, status, contentType, text) {
  const encoder = new TextEncoder();
  const response = new OutgoingResponse(Fields.fromList([['content-type', encoder.encode(contentType)]]));
  response.setStatusCode(status);
  const body = response.body();
  ResponseOutparam.set(responseOut, { tag: 'ok', val: response });

  const stream = body.write();
  const bytes = encoder.encode(text);
  for (let start = 0; start < bytes.length; start += WRITE_BYTES_MAX) {
    stream.blockingWriteAndFlush(bytes.subarray(start, start + WRITE_BYTES_MAX));
  }
  stream[Symbol.dispose]();
  OutgoingBody.finish(body, undefined);
}
