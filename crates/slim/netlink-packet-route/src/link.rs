//! Interfaces (`struct ifinfomsg`).

use std::os::fd::RawFd;

use bitflags::bitflags;
use netlink_packet_core::DecodeError;

use crate::attributes;

// `<linux/if_link.h>`
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;

bitflags! {
    /// State of an interface, and which of it a request changes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct LinkFlags: u32 {
        /// It is up.
        #[allow(non_upper_case_globals)]
        const Up = 1;
        const _ = !0;
    }
}

/// What each message about an interface has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkHeader {
    /// Number of the interface; 0 where the name tells.
    pub index: u32,
    /// State.
    pub flags: LinkFlags,
    /// Which of the state is meant.
    pub change_mask: LinkFlags,
}

/// What a request says besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkAttribute {
    /// Name.
    IfName(String),
    /// Network namespace to go to.
    NetNsFd(RawFd),
}

/// A message about an interface. Of an answer the attributes are left out: nobody asks for them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkMessage {
    /// Which.
    pub header: LinkHeader,
    /// What.
    pub attributes: Vec<LinkAttribute>,
}

impl LinkMessage {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // Family and type of the device: any.
        let mut bytes = vec![0; 4];
        bytes.extend(self.header.index.to_ne_bytes());
        bytes.extend(self.header.flags.bits().to_ne_bytes());
        bytes.extend(self.header.change_mask.bits().to_ne_bytes());
        for attribute in &self.attributes {
            match attribute {
                LinkAttribute::IfName(name) => {
                    let value = [name.as_bytes(), &[0]].concat();
                    attributes::push(&mut bytes, IFLA_IFNAME, &value);
                }
                LinkAttribute::NetNsFd(fd) => {
                    attributes::push(&mut bytes, IFLA_NET_NS_FD, &fd.to_ne_bytes());
                }
            }
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some(&[_, _, _, _, index @ .., a, b, c, d, e, f, g, h]) = bytes.first_chunk::<16>()
        else {
            return Err(format!("a message of {} bytes about an interface", bytes.len()).into());
        };
        Ok(Self {
            header: LinkHeader {
                index: u32::from_ne_bytes(index),
                flags: LinkFlags::from_bits_retain(u32::from_ne_bytes([a, b, c, d])),
                change_mask: LinkFlags::from_bits_retain(u32::from_ne_bytes([e, f, g, h])),
            },
            attributes: Vec::new(),
        })
    }
}
