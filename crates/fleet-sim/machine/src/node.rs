//! Character devices, with the numbers that the driver gives them.

use serde::{Deserialize, Serialize};

/// Major numbers of a driver of the 550 series: `nvidia` is assigned (195), DRM too (kernel `devices.txt`), the rest is
/// dynamic and differs from boot to boot on a real machine.
pub mod major {
    /// `nvidia`, `nvidiactl`, `nvidia-modeset`.
    pub const NVIDIA: u32 = 195;
    /// `nvidia-uvm`.
    pub const UVM: u32 = 511;
    /// `nvidia-caps`.
    pub const CAPS: u32 = 510;
    /// `nvidia-nvswitch`.
    pub const NVSWITCH: u32 = 509;
    /// `nvidia-nvlink`.
    pub const NVLINK: u32 = 508;
    /// `nvidia-caps-imex-channels`.
    pub const IMEX: u32 = 507;
    /// Direct rendering.
    pub const DRM: u32 = 226;
    /// Miscellaneous devices: `/dev/dxg` of WSL.
    pub const MISC: u32 = 10;
}

/// Nodes that everybody may use, as the driver makes them.
const OPEN: u32 = 0o666;

/// A character device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Path below `/dev`.
    pub name: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    #[serde(default = "open", skip_serializing_if = "is_open")]
    pub mode: u32,
    /// Owning group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
}

fn open() -> u32 {
    OPEN
}

// Signatures that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_open(mode: &u32) -> bool {
    *mode == OPEN
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(gid: &u32) -> bool {
    *gid == 0
}

impl Node {
    /// A node that everybody may use.
    #[must_use]
    pub fn new(name: impl Into<String>, major: u32, minor: u32) -> Self {
        Self {
            name: name.into(),
            major,
            minor,
            mode: OPEN,
            gid: 0,
        }
    }

    /// With permission bits and an owning group.
    #[must_use]
    pub fn guarded(mut self, mode: u32, gid: u32) -> Self {
        (self.mode, self.gid) = (mode, gid);
        self
    }
}
