//! D-Bus values and how they lie in a message (D-Bus Specification 0.43, "Marshaling (Wire Format)").
//!
//! Little-endian on both ends: the bus is on this machine.

use std::io;

/// A value of any type that systemd's properties have.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// Signature of an element, elements.
    Array(String, Vec<Self>),
    Struct(Vec<Self>),
    Variant(Box<Self>),
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// "Type System", "Summary of types".
    pub(super) fn signature(&self) -> String {
        let basic = match self {
            Self::Byte(_) => "y",
            Self::Bool(_) => "b",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(element, _) => return format!("a{element}"),
            Self::Struct(fields) => {
                return format!(
                    "({})",
                    fields.iter().map(Self::signature).collect::<String>()
                );
            }
        };
        basic.to_owned()
    }
}

/// Alignment of a type, by the first letter of its signature.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(') => 8,
        _ => 1,
    }
}

/// A message under construction.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn value(&mut self, value: &Value) {
        self.align(alignment(&value.signature()));
        match value {
            Value::Byte(n) => self.0.push(*n),
            Value::Bool(on) => self.raw(&u32::from(*on).to_le_bytes()),
            Value::I16(n) => self.raw(&n.to_le_bytes()),
            Value::U16(n) => self.raw(&n.to_le_bytes()),
            Value::I32(n) => self.raw(&n.to_le_bytes()),
            Value::U32(n) => self.raw(&n.to_le_bytes()),
            Value::I64(n) => self.raw(&n.to_le_bytes()),
            Value::U64(n) => self.raw(&n.to_le_bytes()),
            Value::Double(n) => self.raw(&n.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                self.raw(&length(text.len()).to_le_bytes());
                self.terminated(text);
            }
            Value::Signature(text) => self.signature(text),
            Value::Array(element, items) => self.array(element, items),
            Value::Struct(fields) => fields.iter().for_each(|field| self.value(field)),
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn terminated(&mut self, text: &str) {
        self.raw(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.terminated(text);
    }

    /// The length counts from the first element, not from the padding before it.
    fn array(&mut self, element: &str, items: &[Value]) {
        let place = self.0.len();
        self.raw(&[0; 4]);
        self.align(alignment(element));
        let start = self.0.len();
        items.iter().for_each(|item| self.value(item));
        let size = length(self.0.len() - start).to_le_bytes();
        if let Some(slot) = self.0.get_mut(place..place + 4) {
            slot.copy_from_slice(&size);
        }
    }
}

/// Messages are far below 4 GiB: the largest thing in them is a list of devices.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A received message, read from the front.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or_else(damaged)?;
        let part = self.bytes.get(self.at..end).ok_or_else(damaged)?;
        self.at = end;
        Ok(part)
    }

    pub(super) fn byte(&mut self) -> io::Result<u8> {
        self.take(1)?.first().copied().ok_or_else(damaged)
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| damaged())?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A string or an object path.
    pub(super) fn text(&mut self) -> io::Result<&'a str> {
        let size = self.u32()? as usize;
        self.terminated(size)
    }

    pub(super) fn signature(&mut self) -> io::Result<&'a str> {
        let size = usize::from(self.byte()?);
        self.terminated(size)
    }

    fn terminated(&mut self, size: usize) -> io::Result<&'a str> {
        let text = std::str::from_utf8(self.take(size)?).map_err(|_| damaged())?;
        match self.byte()? {
            0 => Ok(text),
            _ => Err(damaged()),
        }
    }

    /// Goes past a value of a basic type.
    pub(super) fn skip(&mut self, signature: &str) -> io::Result<()> {
        self.align(alignment(signature));
        match signature {
            "y" => self.take(1).map(drop),
            "n" | "q" => self.take(2).map(drop),
            "b" | "i" | "u" => self.take(4).map(drop),
            "x" | "t" | "d" => self.take(8).map(drop),
            "s" | "o" => self.text().map(drop),
            "g" => self.signature().map(drop),
            _ => Err(damaged()),
        }
    }
}

/// What cannot be read as a message.
pub(super) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the message is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.value(value);
        writer.0
    }

    #[test]
    fn layout() {
        let array = Value::Array("t".to_owned(), vec![Value::U64(1)]);
        assert_eq!(
            bytes(&array),
            [8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            "the padding is not in the length"
        );
        let empty = Value::Array("(sv)".to_owned(), vec![]);
        assert_eq!(bytes(&empty), [0; 8], "nor left out of an empty one");
        let variant = Value::Variant(Box::new(Value::U32(7)));
        assert_eq!(bytes(&variant), [1, b'u', 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes(&Value::text("ab")), [2, 0, 0, 0, b'a', b'b', 0]);
        let pair = Value::Struct(vec![Value::Byte(1), Value::Bool(true)]);
        assert_eq!(bytes(&pair), [1, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn signatures() {
        let devices = Value::Array(
            "(ss)".to_owned(),
            vec![Value::Struct(vec![Value::text("a"), Value::text("b")])],
        );
        assert_eq!(devices.signature(), "a(ss)");
    }

    #[test]
    fn reading_stops_at_the_end() {
        let written = bytes(&Value::text("text"));
        assert_eq!(Reader::new(&written).text().unwrap(), "text");
        for end in 0..written.len() {
            assert!(Reader::new(&written[..end]).text().is_err(), "{end}");
        }
        assert!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0]).text().is_err(),
            "a length beyond the message"
        );
        assert!(Reader::new(&[1, 0, 0, 0, b'x', 1]).text().is_err());
    }
}
