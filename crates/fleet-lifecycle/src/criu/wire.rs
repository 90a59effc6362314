//! The little of protocol buffers that CRIU's service speaks (`criu images/rpc.proto`): numbers and bytes by field.
//!
//! Generated code for its messages would be larger than all else that is done about checkpoints here.

/// A message that is being written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

/// How a field is stored.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.0.push(low & 0x7f);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    /// A number that is never negative.
    pub(super) fn number(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    /// A descriptor, a pid: none of ours is negative.
    pub(super) fn signed(&mut self, field: u64, value: i32) -> &mut Self {
        self.number(field, u64::from(value.unsigned_abs()))
    }

    /// A switch; one that is off is left out, as CRIU's defaults are.
    pub(super) fn flag(&mut self, field: u64, on: bool) -> &mut Self {
        if on {
            self.number(field, 1);
        }
        self
    }

    /// A string.
    pub(super) fn text(&mut self, field: u64, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    /// A message within.
    pub(super) fn message(&mut self, field: u64, inner: &Self) -> &mut Self {
        self.bytes(field, &inner.0)
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.varint(field << 3 | LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// As it is sent.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A message that was received.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Fields<'a>(Vec<(u64, Content<'a>)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// Takes a message apart; `None` for what is none.
    pub(super) fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = take_varint(&mut bytes)?;
            let content = match key & 7 {
                VARINT => Content::Number(take_varint(&mut bytes)?),
                LENGTH => {
                    let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                    Content::Bytes(take(&mut bytes, length)?)
                }
                FIXED64 => Content::Bytes(take(&mut bytes, 8)?),
                FIXED32 => Content::Bytes(take(&mut bytes, 4)?),
                _ => return None,
            };
            fields.push((key >> 3, content));
        }
        Some(Self(fields))
    }

    /// The last one counts.
    fn last(&self, field: u64) -> Option<Content<'a>> {
        let found = self.0.iter().rev().find(|(number, _)| *number == field);
        found.map(|(_, content)| *content)
    }

    /// A number.
    pub(super) fn number(&self, field: u64) -> Option<u64> {
        match self.last(field)? {
            Content::Number(value) => Some(value),
            Content::Bytes(_) => None,
        }
    }

    /// A pid, an error number.
    pub(super) fn signed(&self, field: u64) -> Option<i32> {
        i32::try_from(self.number(field)?).ok()
    }

    /// A string, what is no text in it replaced.
    pub(super) fn text(&self, field: u64) -> Option<String> {
        match self.last(field)? {
            Content::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Content::Number(_) => None,
        }
    }

    /// A message within.
    pub(super) fn message(&self, field: u64) -> Option<Self> {
        match self.last(field)? {
            Content::Bytes(bytes) => Self::parse(bytes),
            Content::Number(_) => None,
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// At most ten bytes of seven bits.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Message::default();
        inner.text(1, "key").signed(2, 4711);
        let mut outer = Message::default();
        outer
            .number(1, 2)
            .flag(3, true)
            .flag(4, false)
            .message(27, &inner)
            .number(45, 300)
            .number(1, 7);
        let fields = Fields::parse(outer.as_bytes()).unwrap();
        assert_eq!(fields.number(1), Some(7), "the last one counts");
        assert_eq!(fields.number(3), Some(1));
        assert_eq!(fields.number(4), None);
        assert_eq!(fields.number(45), Some(300));
        let inner = fields.message(27).unwrap();
        assert_eq!(inner.text(1).as_deref(), Some("key"));
        assert_eq!(inner.signed(2), Some(4711));
        assert_eq!((inner.number(1), inner.text(2)), (None, None), "by kind");
    }

    /// The example of the encoding's own description: field 1, 150.
    #[test]
    fn numbers_are_encoded_as_others_do() {
        let mut message = Message::default();
        message.number(1, 150);
        assert_eq!(message.as_bytes(), [0x08, 0x96, 0x01]);
        let mut text = Message::default();
        text.text(2, "testing");
        assert_eq!(text.as_bytes(), b"\x12\x07testing");
        let mut large = Message::default();
        large.number(1, u64::MAX);
        assert_eq!(
            Fields::parse(large.as_bytes()).unwrap().number(1),
            Some(u64::MAX)
        );
    }

    #[test]
    fn what_is_no_message_is_told() {
        for bytes in [
            &b"\x08"[..],
            b"\x12\x07test",
            b"\x0b",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x",
            b"\x0d\0\0",
        ] {
            assert_eq!(Fields::parse(bytes), None, "{bytes:x?}");
        }
        assert_eq!(Fields::parse(b""), Some(Fields::default()));
        assert!(Fields::parse(b"\x0d\0\0\0\0\x11\0\0\0\0\0\0\0\0").is_some());
    }
}
