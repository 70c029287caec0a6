//! The CSV of hourly temperatures that the example functions read, as it arrives: in chunks.
//!
//! A header names two columns, `date` and `temp`, in either order; each line after it is one reading.
//! Memory stays bounded whatever is sent: the parser keeps one unfinished line and no more.

use std::fmt;

/// Far above any honest line, and the most that a body without a single line end can make us hold.
const LINE_BYTES_MAX: usize = 256;

/// One line. The date is checked but stays text, so that it can be written out as it came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading<'a> {
    /// `2010/01/01 00:00`, seconds optional; the first ten bytes are the day.
    pub date: &'a str,
    pub temp: f64,
}

/// Which column comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    DateTemp,
    TempDate,
}

impl Columns {
    #[must_use]
    pub fn header(self) -> &'static str {
        match self {
            Columns::DateTemp => "date,temp",
            Columns::TempDate => "temp,date",
        }
    }

    fn parse(header: &str) -> Result<Columns, Cause> {
        // Spreadsheets put a byte order mark in front of what they export.
        match header.trim_start_matches('\u{feff}') {
            "date,temp" => Ok(Columns::DateTemp),
            "temp,date" => Ok(Columns::TempDate),
            other => Err(Cause::Header(other.to_owned())),
        }
    }

    fn reading(self, line: &str) -> Result<Reading<'_>, Cause> {
        let (first, second) = line.split_once(',').ok_or(Cause::ColumnCount)?;
        let (date, temp) = match self {
            Columns::DateTemp => (first, second),
            Columns::TempDate => (second, first),
        };
        if date.contains(',') || temp.contains(',') {
            return Err(Cause::ColumnCount);
        }
        if !is_date(date) {
            return Err(Cause::Date(date.to_owned()));
        }
        // `parse` would also take `inf` and `NaN`, which no thermometer shows.
        let number = temp.parse().ok().filter(|number: &f64| number.is_finite());
        let temp = number.ok_or_else(|| Cause::Temperature(temp.to_owned()))?;
        Ok(Reading { date, temp })
    }
}

/// The first line that is wrong, counted from 1, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    pub line: u64,
    pub cause: Cause,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Cause {
    Header(String),
    ColumnCount,
    Date(String),
    Temperature(String),
    TooLong,
    NotUtf8,
}

impl std::error::Error for BadLine {}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.cause {
            Cause::Header(header) => {
                write!(f, "expected the header `date,temp` or `temp,date`, found `{header}`")
            }
            Cause::ColumnCount => f.write_str("expected two columns"),
            Cause::Date(date) => {
                write!(f, "`{date}` is no date-time such as `2010/01/31 23:00`")
            }
            Cause::Temperature(temp) => write!(f, "`{temp}` is no temperature"),
            Cause::TooLong => write!(f, "longer than {LINE_BYTES_MAX} bytes"),
            Cause::NotUtf8 => f.write_str("not UTF-8 text"),
        }
    }
}

/// Feed it chunks with [`Parser::push`], cut anywhere; end with [`Parser::finish`].
#[derive(Debug, Default)]
pub struct Parser {
    columns: Option<Columns>,
    lines_seen: u64,
    /// The start of a line whose end has not arrived.
    partial: Vec<u8>,
}

impl Parser {
    /// Calls `each` for every reading that `chunk` completes.
    pub fn push(&mut self, chunk: &[u8], mut each: impl FnMut(Columns, Reading<'_>)) -> Result<(), BadLine> {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.extend_partial(&rest[..end])?;
            self.end_line(&mut each)?;
            rest = &rest[end + 1..];
        }
        self.extend_partial(rest)
    }

    /// Reads a last line that has no line end. An empty input is refused here: it has no header.
    pub fn finish(mut self, mut each: impl FnMut(Columns, Reading<'_>)) -> Result<Columns, BadLine> {
        if !self.partial.is_empty() || self.columns.is_none() {
            self.end_line(&mut each)?;
        }
        Ok(self.columns.expect("the first line is a header or an error"))
    }

    /// The number of the line that was read last, for an error the caller finds in its meaning.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.lines_seen
    }

    fn extend_partial(&mut self, bytes: &[u8]) -> Result<(), BadLine> {
        if self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(BadLine { line: self.lines_seen + 1, cause: Cause::TooLong });
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, each: &mut impl FnMut(Columns, Reading<'_>)) -> Result<(), BadLine> {
        self.lines_seen += 1;
        let at_line = |cause| BadLine { line: self.lines_seen, cause };
        let text = str::from_utf8(&self.partial).map_err(|_| at_line(Cause::NotUtf8))?;
        let text = text.strip_suffix('\r').unwrap_or(text);
        match self.columns {
            None => self.columns = Some(Columns::parse(text).map_err(at_line)?),
            // An empty line carries nothing that could be wrong; editors leave one at the end.
            Some(_) if text.is_empty() => {}
            Some(columns) => each(columns, columns.reading(text).map_err(at_line)?),
        }
        self.partial.clear();
        Ok(())
    }
}

/// `YYYY/MM/DD hh:mm` with optional `:ss`. The day is checked against 31, not against the calendar:
/// nothing here computes with it.
fn is_date(text: &str) -> bool {
    const SHAPE: &[u8] = b"dddd/dd/dd dd:dd:dd";
    let bytes = text.as_bytes();
    let shaped = matches!(bytes.len(), 16 | 19)
        && bytes.iter().zip(SHAPE).all(|(&byte, &shape)| match shape {
            b'd' => byte.is_ascii_digit(),
            separator => byte == separator,
        });
    let two_digits = |at: usize| (bytes[at] - b'0') * 10 + (bytes[at + 1] - b'0');
    shaped && (1..=12).contains(&two_digits(5)) && (1..=31).contains(&two_digits(8)) && two_digits(11) < 24 && two_digits(14) < 60
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&[u8]]) -> Result<Vec<(String, f64)>, BadLine> {
        let mut readings = Vec::new();
        let mut keep = |_, reading: Reading<'_>| readings.push((reading.date.to_owned(), reading.temp));
        let mut parser = Parser::default();
        for chunk in chunks {
            parser.push(chunk, &mut keep)?;
        }
        parser.finish(&mut keep)?;
        Ok(readings)
    }

    #[test]
    fn both_column_orders_give_the_same_readings() {
        let expected = Ok(vec![("2010/01/01 00:00".to_owned(), 39.4)]);
        assert_eq!(parse(&[b"date,temp\n2010/01/01 00:00,39.4\n"]), expected);
        assert_eq!(parse(&[b"temp,date\r\n39.4,2010/01/01 00:00"]), expected);
    }

    #[test]
    fn a_chunk_may_end_anywhere() {
        let body = b"temp,date\n47.8,2010/01/01 00:00:00\n-3,2010/12/31 23:59:59\n";
        let whole = parse(&[body]);
        assert_eq!(whole.as_ref().map(Vec::len), Ok(2));
        for cut in 0..body.len() {
            assert_eq!(parse(&[&body[..cut], &body[cut..]]), whole);
        }
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let message = |body: &[u8]| parse(&[body]).map_err(|error| error.to_string());
        for (body, expected) in [
            ("", "line 1: expected the header `date,temp` or `temp,date`, found ``"),
            ("date,temp\n\n2010/13/01 00:00,1", "line 3: `2010/13/01 00:00` is no date-time such as `2010/01/31 23:00`"),
            ("date,temp\n2010/01/01 00:00,warm\n", "line 2: `warm` is no temperature"),
            ("date,temp\n2010/01/01 00:00,NaN\n", "line 2: `NaN` is no temperature"),
            ("date,temp\n2010/01/01 00:00,1,2\n", "line 2: expected two columns"),
            ("date,temp\nnothing\n", "line 2: expected two columns"),
        ] {
            assert_eq!(message(body.as_bytes()), Err(expected.to_owned()));
        }
        assert_eq!(message(&[b'x'; 300]), Err("line 1: longer than 256 bytes".to_owned()));
        assert_eq!(message(b"date,temp\n\xff\n"), Err("line 2: not UTF-8 text".to_owned()));
    }
}
