//! The part of the wire format of protobuf that OTLP needs: a writer of fields, and a reader of answers.

/// A message that is being written. Fields that have the value of their type's default are left out, as proto3 does.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).expect("below 128"));
    }

    fn tag(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    pub(super) fn number(&mut self, field: u64, number: u64) {
        if number != 0 {
            self.number_always(field, number);
        }
    }

    /// Of a field that is there or not, such as one of several.
    pub(super) fn number_always(&mut self, field: u64, number: u64) {
        self.tag(field, VARINT);
        self.varint(number);
    }

    pub(super) fn fixed64(&mut self, field: u64, number: u64) {
        if number != 0 {
            self.fixed64_always(field, number);
        }
    }

    pub(super) fn fixed64_always(&mut self, field: u64, number: u64) {
        self.tag(field, FIXED64);
        self.0.extend(number.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, field: u64, number: u32) {
        if number != 0 {
            self.tag(field, FIXED32);
            self.0.extend(number.to_le_bytes());
        }
    }

    pub(super) fn double_always(&mut self, field: u64, number: f64) {
        self.tag(field, FIXED64);
        self.0.extend(number.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, field: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes_always(field, bytes);
        }
    }

    pub(super) fn bytes_always(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    pub(super) fn packed(&mut self, field: u64, numbers: impl Iterator<Item = [u8; 8]>) {
        let bytes: Vec<u8> = numbers.flatten().collect();
        self.bytes(field, &bytes);
    }

    /// A message in it, also an empty one.
    pub(super) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes_always(field, &inner.0);
    }
}

/// A field of a message that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message by their numbers; those after a damaged place are not there.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, bytes: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            VARINT => Field::Number(self.varint()?),
            FIXED64 => Field::Bytes(self.take(8)?),
            BYTES => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            FIXED32 => Field::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_examples_are_written_and_read() {
        // From protobuf's description of its encoding.
        let mut message = Message::default();
        message.number(1, 150);
        message.text(2, "testing");
        message.number(3, 0);
        let bytes = message.into_bytes();
        assert_eq!(bytes, b"\x08\x96\x01\x12\x07testing");
        let fields: Vec<_> = Fields(&bytes).collect();
        assert_eq!(fields, [(1, Field::Number(150)), (2, Field::Bytes(b"testing"))]);
    }

    #[test]
    fn damaged_messages_end_and_never_panic() {
        for bytes in [&b"\xff"[..], b"\x08", b"\x12\x07test", b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b\x01", &[0xff; 32]] {
            assert_eq!(Fields(bytes).count(), 0, "{bytes:?}");
        }
    }
}
