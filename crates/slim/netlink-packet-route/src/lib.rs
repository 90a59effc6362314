//! Stands in for `netlink-packet-route`, which libcontainer asks for: more than half a MB that knows every message about
//! interfaces, routes, queues and neighbours, where `linux.netDevices` needs to find, move, name and raise an interface
//! and to read and add its addresses. This has those, under the names that libcontainer uses (`man 7 rtnetlink`).

pub mod address;
mod attributes;
pub mod link;

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
};

use address::AddressMessage;
use link::LinkMessage;

// `<linux/rtnetlink.h>`
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

/// Kind of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// All kinds.
    #[default]
    Unspec,
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
    /// Another.
    Other(u8),
}

impl From<u8> for AddressFamily {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Unspec,
            2 => Self::Inet,
            10 => Self::Inet6,
            other => Self::Other(other),
        }
    }
}

impl From<AddressFamily> for u8 {
    fn from(family: AddressFamily) -> Self {
        match family {
            AddressFamily::Unspec => 0,
            AddressFamily::Inet => 2,
            AddressFamily::Inet6 => 10,
            AddressFamily::Other(number) => number,
        }
    }
}

/// One message, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteNetlinkMessage {
    /// What an interface is.
    NewLink(LinkMessage),
    /// Asks for that.
    GetLink(LinkMessage),
    /// Changes an interface.
    SetLink(LinkMessage),
    /// An address that is there, or is to be.
    NewAddress(AddressMessage),
    /// Asks for addresses.
    GetAddress(AddressMessage),
}

impl RouteNetlinkMessage {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::NewLink(link) | Self::GetLink(link) | Self::SetLink(link) => link.bytes(),
            Self::NewAddress(address) | Self::GetAddress(address) => address.bytes(),
        }
    }
}

impl NetlinkSerializable for RouteNetlinkMessage {
    fn message_type(&self) -> u16 {
        match self {
            Self::NewLink(_) => RTM_NEWLINK,
            Self::GetLink(_) => RTM_GETLINK,
            Self::SetLink(_) => RTM_SETLINK,
            Self::NewAddress(_) => RTM_NEWADDR,
            Self::GetAddress(_) => RTM_GETADDR,
        }
    }

    fn buffer_len(&self) -> usize {
        self.bytes().len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let bytes = self.bytes();
        buffer[..bytes.len()].copy_from_slice(&bytes);
    }
}

impl NetlinkDeserializable for RouteNetlinkMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        match header.message_type {
            RTM_NEWLINK => LinkMessage::parse(payload).map(Self::NewLink),
            RTM_NEWADDR => AddressMessage::parse(payload).map(Self::NewAddress),
            other => {
                Err(format!("the kernel is not known to send messages of type {other}").into())
            }
        }
    }
}

impl From<RouteNetlinkMessage> for NetlinkPayload<RouteNetlinkMessage> {
    fn from(message: RouteNetlinkMessage) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkMessage;

    use super::*;

    fn sent(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let mut link = LinkMessage::default();
        link.header.index = 3;
        link.header.flags |= link::LinkFlags::Up;
        link.header.change_mask |= link::LinkFlags::Up;
        link.attributes = vec![
            link::LinkAttribute::IfName("eth0".to_owned()),
            link::LinkAttribute::NetNsFd(9),
        ];
        let bytes = sent(RouteNetlinkMessage::SetLink(link));
        let header = [52, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let body = [0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];
        let name = [9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0];
        let namespace = [8, 0, 28, 0, 9, 0, 0, 0];
        assert_eq!(
            bytes,
            [&header[..], &body[..], &name[..], &namespace[..]].concat()
        );
    }

    #[test]
    fn an_answer_of_an_unknown_kind_is_an_error() {
        let bytes = [16, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes);
        assert!(answer.unwrap_err().to_string().contains("type 24"));
    }

    #[test]
    fn an_address_comes_back_as_it_was_sent() {
        let mut address = AddressMessage::default();
        address.header.family = AddressFamily::Inet6;
        address.header.prefix_len = 64;
        address.header.index = 7;
        address.header.scope = address::AddressScope::Link;
        address.header.flags = address::AddressHeaderFlags::Permanent;
        let own = "fe80::1".parse().unwrap();
        address.attributes = vec![
            address::AddressAttribute::Address(own),
            address::AddressAttribute::Local(own),
        ];
        let bytes = sent(RouteNetlinkMessage::NewAddress(address.clone()));
        let back = NetlinkMessage::deserialize(&bytes).unwrap().payload;
        assert_eq!(
            back,
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address))
        );
    }

    #[test]
    fn what_is_cut_off_is_an_error_or_left_out_but_never_read_beyond() {
        let mut address = AddressMessage::default();
        address.header.family = AddressFamily::Inet;
        let own = "192.0.2.7".parse().unwrap();
        address.attributes = vec![address::AddressAttribute::Address(own)];
        let body = address.bytes();
        for length in 0..body.len() {
            match AddressMessage::parse(&body[..length]) {
                Ok(message) => assert!(length >= 8 && message.attributes.is_empty()),
                Err(_) => assert!(length < 8),
            }
        }
        for length in 0..16 {
            assert!(LinkMessage::parse(&[0; 16][..length]).is_err());
        }
    }
}
