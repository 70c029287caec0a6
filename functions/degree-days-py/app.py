"""Heating degree days per month of an hourly temperature CSV (Fahrenheit), as JSON.

A day's degree days are how far its mean, taken as (highest + lowest) / 2, stays below 65 °F: the
convention of NOAA's climate reports, so the numbers can be compared with theirs.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.streams import InputStream, StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

BASE_F = 65.0
CHUNK_BYTES = 64 * 1024
WRITE_BYTES_MAX = 4096  # what `blocking-write-and-flush` takes at once
LINE_BYTES_MAX = 256
DAYS_MAX = 36_525  # a century: the bound on memory for a body that never repeats a day
DATE = re.compile(
    r"(\d{4}/(?:0[1-9]|1[0-2])/(?:0[1-9]|[12]\d|3[01])) (?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?",
    re.ASCII,
)
TEMPERATURE = re.compile(r"-?\d{1,4}(\.\d{1,6})?", re.ASCII)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        try:
            # Streams and bodies are handles of the host: `with` gives each back, children first.
            with request.consume() as body, body.stream() as stream:
                text = json.dumps(degree_days(lines(stream))) + "\n"
        except BadLine as error:
            answer(response_out, 400, "text/plain", f"{error}\n")
        else:
            answer(response_out, 200, "application/json", text)


class BadLine(Exception):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")


@dataclass
class Range:
    lowest: float
    highest: float


def degree_days(numbered_lines: Iterator[tuple[int, str]]) -> list[dict]:
    """Keeps two numbers per day, however many readings a day has."""
    number, header = next(numbered_lines)
    if header not in ("date,temp", "temp,date"):
        raise BadLine(number, f"expected the header `date,temp` or `temp,date`, found `{header}`")
    days: dict[str, Range] = {}
    for number, line in numbered_lines:
        if not line:
            continue
        columns = line.split(",")
        if len(columns) != 2:
            raise BadLine(number, "expected two columns")
        date, temp = columns if header == "date,temp" else reversed(columns)
        if not (match := DATE.fullmatch(date)):
            raise BadLine(number, f"`{date}` is no date-time such as `2010/01/31 23:00`")
        if not TEMPERATURE.fullmatch(temp):
            raise BadLine(number, f"`{temp}` is no temperature")
        if match[1] not in days and len(days) == DAYS_MAX:
            raise BadLine(number, f"more than {DAYS_MAX} different days")
        degrees = float(temp)
        day = days.setdefault(match[1], Range(degrees, degrees))
        day.lowest = min(day.lowest, degrees)
        day.highest = max(day.highest, degrees)

    months: dict[str, list[float]] = defaultdict(list)
    for date, day in sorted(days.items()):
        mean = (day.highest + day.lowest) / 2
        months[date[:7].replace("/", "-")].append(max(0.0, BASE_F - mean))
    return [
        {"month": month, "days": len(values), "hdd": round(sum(values), 1)}
        for month, values in months.items()
    ]


def lines(stream: InputStream) -> Iterator[tuple[int, str]]:
    """Yields (number, text); holds one chunk and one unfinished line. An empty body is one empty line."""
    number, partial = 0, b""
    for chunk in chunks(stream):
        *complete, partial = (partial + chunk).split(b"\n")
        for line in complete:
            number += 1
            yield number, decode(number, line)
        if len(partial) > LINE_BYTES_MAX:
            raise BadLine(number + 1, f"longer than {LINE_BYTES_MAX} bytes")
    if partial or number == 0:
        yield number + 1, decode(number + 1, partial)


def decode(number: int, line: bytes) -> str:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise BadLine(number, "not UTF-8 text") from None


def chunks(stream: InputStream) -> Iterator[bytes]:
    while True:
        try:
            yield stream.blocking_read(CHUNK_BYTES)
        except Err as error:
            # The end of a body is reported the way a failure is.
            if isinstance(error.value, StreamError_Closed):
                return
            raise


def answer(response_out: ResponseOutparam, status: int, content_type: str, text: str) -> None:
    response = OutgoingResponse(Fields.from_list([("content-type", content_type.encode())]))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    data = text.encode()
    with body.write() as stream:
        for start in range(0, len(data), WRITE_BYTES_MAX):
            stream.blocking_write_and_flush(data[start : start + WRITE_BYTES_MAX])
    OutgoingBody.finish(body, None)
