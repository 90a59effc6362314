//! Messages: calls that we send, replies and signals that we get (D-Bus Specification, "Message Format").

use std::io;

use super::wire::{Reader, Value, Writer, damaged};

/// Largest message that is read, in bytes; the bus itself takes 128 MiB, systemd's answers have a few hundred.
const LARGEST: usize = 16 << 20;
/// Bytes before the header fields.
const FIXED: usize = 16;

/// Kinds of messages, "Message Format".
pub(super) const METHOD_CALL: u8 = 1;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// The bus or systemd.
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) arguments: Vec<Value>,
}

impl Call<'_> {
    /// As bytes; `serial` is what the reply names.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        let mut signature = String::new();
        for argument in &self.arguments {
            signature.push_str(&argument.signature());
            body.value(argument);
        }
        let field = |code: u8, value: Value| {
            Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
        };
        let mut fields = vec![
            field(PATH, Value::Path(self.path.to_owned())),
            field(INTERFACE, Value::text(self.interface)),
            field(MEMBER, Value::text(self.member)),
            field(DESTINATION, Value::text(self.destination)),
        ];
        if !signature.is_empty() {
            fields.push(field(SIGNATURE, Value::Signature(signature)));
        }
        let mut message = Writer(vec![b'l', METHOD_CALL, 0, 1]);
        message.value(&Value::U32(u32::try_from(body.0.len()).unwrap_or(u32::MAX)));
        message.value(&Value::U32(serial));
        message.value(&Value::Array("(yv)".to_owned(), fields));
        message.align(8);
        message.0.extend(body.0);
        message.0
    }
}

/// A message that arrived.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) kind: u8,
    pub(super) reply_to: u32,
    pub(super) member: String,
    /// Of an error.
    pub(super) error: String,
    pub(super) body: Vec<u8>,
}

impl Incoming {
    /// Takes one message off the front of what was received; `None` while it is not whole.
    pub(super) fn take(buffer: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let Some(size) = size(buffer)? else {
            return Ok(None);
        };
        if buffer.len() < size {
            return Ok(None);
        }
        let message: Vec<u8> = buffer.drain(..size).collect();
        decode(&message).map(Some)
    }

    /// What an error says.
    pub(super) fn text(&self) -> String {
        let text = Reader::new(&self.body).text().unwrap_or_default();
        if text.is_empty() {
            self.error.clone()
        } else {
            text.trim_end_matches('.').to_owned()
        }
    }
}

/// Length of the message that the buffer starts with.
fn size(buffer: &[u8]) -> io::Result<Option<usize>> {
    if buffer.len() < FIXED {
        return Ok(None);
    }
    if buffer.first() != Some(&b'l') {
        return Err(damaged());
    }
    let word = |at: usize| Reader::new(buffer.get(at..).unwrap_or_default()).u32();
    let (body, fields) = (word(4)? as usize, word(12)? as usize);
    if body > LARGEST || fields > LARGEST {
        return Err(damaged());
    }
    Ok(Some((FIXED + fields).next_multiple_of(8) + body))
}

fn decode(message: &[u8]) -> io::Result<Incoming> {
    let mut reader = Reader::new(message);
    let mut incoming = Incoming::default();
    reader.byte()?;
    incoming.kind = reader.byte()?;
    reader.skip("q")?;
    let body = reader.u32()? as usize;
    reader.u32()?;
    let end = FIXED + reader.u32()? as usize;
    while reader.position() < end {
        reader.align(8);
        let code = reader.byte()?;
        let signature = reader.signature()?;
        match (code, signature) {
            (MEMBER, "s") => incoming.member = reader.text()?.to_owned(),
            (ERROR_NAME, "s") => incoming.error = reader.text()?.to_owned(),
            (REPLY_SERIAL, "u") => incoming.reply_to = reader.u32()?,
            (_, signature) => reader.skip(signature)?,
        }
    }
    let start = message.len().checked_sub(body).ok_or_else(damaged)?;
    incoming.body = message.get(start..).ok_or_else(damaged)?.to_vec();
    Ok(incoming)
}

#[cfg(test)]
pub(super) mod test {
    use super::*;

    /// What a bus sends: a message of any kind with the given header fields.
    pub(in super::super) fn sent(kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
        let mut content = Writer::default();
        let signature: String = body.iter().map(Value::signature).collect();
        body.iter().for_each(|value| content.value(value));
        let mut all: Vec<Value> = fields
            .into_iter()
            .map(|(code, value)| {
                Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
            })
            .collect();
        all.push(Value::Struct(vec![
            Value::Byte(SIGNATURE),
            Value::Variant(Box::new(Value::Signature(signature))),
        ]));
        let mut message = Writer(vec![b'l', kind, 0, 1]);
        message.value(&Value::U32(u32::try_from(content.0.len()).unwrap()));
        message.value(&Value::U32(99));
        message.value(&Value::Array("(yv)".to_owned(), all));
        message.align(8);
        message.0.extend(content.0);
        message.0
    }

    pub(in super::super) fn reply(to: u32, body: &[Value]) -> Vec<u8> {
        sent(METHOD_RETURN, vec![(REPLY_SERIAL, Value::U32(to))], body)
    }

    pub(in super::super) fn error(to: u32, name: &str, text: &str) -> Vec<u8> {
        let fields = vec![
            (REPLY_SERIAL, Value::U32(to)),
            (ERROR_NAME, Value::text(name)),
        ];
        sent(ERROR, fields, &[Value::text(text)])
    }

    pub(in super::super) fn signal(member: &str, body: &[Value]) -> Vec<u8> {
        let fields = vec![
            (PATH, Value::Path("/org/freedesktop/systemd1".to_owned())),
            (MEMBER, Value::text(member)),
        ];
        sent(SIGNAL, fields, body)
    }

    /// Member and serial of a call.
    pub(in super::super) fn read_call(message: &[u8]) -> (String, u32) {
        let serial = Reader::new(&message[8..]).u32().unwrap();
        (decode(message).unwrap().member, serial)
    }

    pub(in super::super) fn size_of(buffer: &[u8]) -> Option<usize> {
        size(buffer).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_in_pieces() {
        let whole = test::error(7, "org.x.Failed", "it failed.");
        let mut buffer = Vec::new();
        for byte in &whole {
            assert_eq!(Incoming::take(&mut buffer).unwrap(), None);
            buffer.push(*byte);
        }
        buffer.extend(test::signal("JobRemoved", &[Value::U32(1)]));
        let first = Incoming::take(&mut buffer).unwrap().unwrap();
        assert_eq!((first.kind, first.reply_to), (ERROR, 7));
        assert_eq!(
            (first.error.as_str(), first.text()),
            ("org.x.Failed", "it failed".to_owned())
        );
        let second = Incoming::take(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (second.kind, second.member.as_str()),
            (SIGNAL, "JobRemoved")
        );
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_call_reads_back() {
        let call = Call {
            destination: "org.d",
            path: "/p",
            interface: "org.i",
            member: "M",
            arguments: vec![Value::text("x"), Value::U64(1)],
        };
        let mut bytes = call.encode(3);
        assert_eq!(test::read_call(&bytes), ("M".to_owned(), 3));
        let read = Incoming::take(&mut bytes).unwrap().unwrap();
        assert_eq!(read.kind, METHOD_CALL);
        let mut body = Reader::new(&read.body);
        assert_eq!(body.text().unwrap(), "x");
    }

    #[test]
    fn nonsense_is_an_error() {
        for mut bad in [
            b"Bxxxxxxxxxxxxxxxxxxxxx".to_vec(),
            [&b"l\x02\0\x01"[..], &[0xff; 12]].concat(),
            [
                &b"l\x02\0\x01"[..],
                &[0; 8],
                &[8, 0, 0, 0],
                &[5, 9, 9, 9, 9, 9, 9, 9],
            ]
            .concat(),
        ] {
            assert!(Incoming::take(&mut bad).is_err(), "{bad:?}");
        }
    }
}
