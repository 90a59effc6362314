//! Addresses of interfaces (`struct ifaddrmsg`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bitflags::bitflags;
use netlink_packet_core::DecodeError;

use crate::{AddressFamily, attributes};

// `<linux/if_addr.h>`
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_MULTICAST: u16 = 7;

bitflags! {
    /// How an address came to be.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct AddressHeaderFlags: u8 {
        /// Somebody set it.
        #[allow(non_upper_case_globals)]
        const Permanent = 0x80;
        const _ = !0;
    }
}

/// How far an address means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressScope {
    /// Everywhere.
    #[default]
    Universe,
    /// On this link.
    Link,
    /// Elsewhere in between.
    Other(u8),
}

impl From<u8> for AddressScope {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Universe,
            253 => Self::Link,
            other => Self::Other(other),
        }
    }
}

impl From<AddressScope> for u8 {
    fn from(scope: AddressScope) -> Self {
        match scope {
            AddressScope::Universe => 0,
            AddressScope::Link => 253,
            AddressScope::Other(number) => number,
        }
    }
}

/// What each message about an address has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressHeader {
    /// Its kind.
    pub family: AddressFamily,
    /// Bits of it that name the network.
    pub prefix_len: u8,
    /// How it came to be.
    pub flags: AddressHeaderFlags,
    /// How far it means something.
    pub scope: AddressScope,
    /// Number of the interface.
    pub index: u32,
}

/// One part of what is said about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressAttribute {
    /// The address, or that of the other end.
    Address(IpAddr),
    /// The address at this end.
    Local(IpAddr),
    /// Reaches all of the network.
    Broadcast(Ipv4Addr),
    /// Reaches a group.
    Multicast(Ipv6Addr),
}

/// A message about an address. Of an answer what is not listed in [`AddressAttribute`] is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressMessage {
    /// Which.
    pub header: AddressHeader,
    /// What.
    pub attributes: Vec<AddressAttribute>,
}

impl AddressMessage {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header = &self.header;
        let mut bytes = vec![
            header.family.into(),
            header.prefix_len,
            header.flags.bits(),
            header.scope.into(),
        ];
        bytes.extend(header.index.to_ne_bytes());
        for attribute in &self.attributes {
            match attribute {
                AddressAttribute::Address(ip) => push(&mut bytes, IFA_ADDRESS, *ip),
                AddressAttribute::Local(ip) => push(&mut bytes, IFA_LOCAL, *ip),
                AddressAttribute::Broadcast(ip) => push(&mut bytes, IFA_BROADCAST, (*ip).into()),
                AddressAttribute::Multicast(ip) => push(&mut bytes, IFA_MULTICAST, (*ip).into()),
            }
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some((&[family, prefix_len, flags, scope, index @ ..], rest)) =
            bytes.split_first_chunk::<8>()
        else {
            return Err(format!("a message of {} bytes about an address", bytes.len()).into());
        };
        let attribute = |(kind, value): (u16, &[u8])| match (kind, ip(value)?) {
            (IFA_ADDRESS, ip) => Some(AddressAttribute::Address(ip)),
            (IFA_LOCAL, ip) => Some(AddressAttribute::Local(ip)),
            (IFA_BROADCAST, IpAddr::V4(ip)) => Some(AddressAttribute::Broadcast(ip)),
            (IFA_MULTICAST, IpAddr::V6(ip)) => Some(AddressAttribute::Multicast(ip)),
            _ => None,
        };
        Ok(Self {
            header: AddressHeader {
                family: family.into(),
                prefix_len,
                flags: AddressHeaderFlags::from_bits_retain(flags),
                scope: scope.into(),
                index: u32::from_ne_bytes(index),
            },
            attributes: attributes::each(rest).filter_map(attribute).collect(),
        })
    }
}

fn push(message: &mut Vec<u8>, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => attributes::push(message, kind, &ip.octets()),
        IpAddr::V6(ip) => attributes::push(message, kind, &ip.octets()),
    }
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(value)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
        .ok()
}
