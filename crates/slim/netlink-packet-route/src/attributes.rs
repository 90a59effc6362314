//! Attributes: length, type, value, padded to four bytes (`struct rtattr`).

const HEADER: usize = 4;

/// Adds an attribute to a message.
pub(crate) fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Values are names of interfaces and addresses.
    let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The attributes in the rest of a message, up to the first that is not whole.
pub(crate) fn each(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let value = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
