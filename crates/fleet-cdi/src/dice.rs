//! Specs made up for tests, the same on every run.

use crate::model::{ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec};

/// A xorshift generator.
pub(crate) struct Dice(u64);

/// Texts that a careless writer or reader would take for something else.
const TEXTS: [&str; 40] = [
    "/dev/nvidia0",
    "--link",
    "a b",
    "yes",
    "no",
    "On",
    "y",
    "null",
    "~",
    "true",
    "0640",
    "0o640",
    "0x1b",
    "1_000",
    "1e3",
    ".5",
    "0:1",
    "2001-01-01",
    "key: value",
    "trailing:",
    " leading",
    "trailing ",
    "a #b",
    "#c",
    "- item",
    "-",
    "[x]",
    "{x}",
    "*x",
    "&x",
    "!x",
    "%x",
    "\"quoted\"",
    "it's",
    "back\\slash",
    "line\nbreak",
    "tab\there",
    "é中\u{1f600}",
    "\u{7f}\u{85}\u{2028}\u{feff}",
    "<<",
];

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn text(&mut self) -> String {
        let one = TEXTS[self.below(TEXTS.len())];
        match self.below(3) {
            0 => format!("{one}{}", TEXTS[self.below(TEXTS.len())]),
            _ => one.to_owned(),
        }
    }

    fn some<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| make(self))
    }

    fn many<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.below(3)).map(|_| make(self)).collect()
    }

    fn number(&mut self) -> u32 {
        u32::try_from(self.below(1 << 30)).unwrap()
    }

    fn env(&mut self) -> String {
        format!("NAME={}", self.text())
    }

    fn node(&mut self) -> DeviceNode {
        DeviceNode {
            path: self.text(),
            host_path: self.some(Self::text),
            device_type: self.some(|dice| ["b", "c", "u", "p"][dice.below(4)].to_owned()),
            major: self.some(|dice| i64::from(dice.number()) - 7),
            minor: self.some(|dice| i64::from(dice.number())),
            file_mode: self.some(Self::number),
            permissions: self.some(|dice| ["r", "rw", "rwm", "mm"][dice.below(4)].to_owned()),
            uid: self.some(Self::number),
            gid: self.some(Self::number),
        }
    }

    fn hook(&mut self) -> Hook {
        Hook {
            hook_name: ["prestart", "createContainer", "poststop"][self.below(3)].to_owned(),
            path: self.text(),
            args: self.many(Self::text),
            env: self.many(Self::env),
            timeout: self.some(|dice| i64::from(dice.number())),
        }
    }

    fn mount(&mut self) -> Mount {
        Mount {
            host_path: self.text(),
            container_path: self.text(),
            mount_type: self.some(Self::text),
            options: self.many(Self::text),
        }
    }

    fn rdt(&mut self) -> IntelRdt {
        IntelRdt {
            clos_id: self.some(|_| "no".to_owned()),
            l3_cache_schema: self.some(Self::text),
            mem_bw_schema: self.some(Self::text),
            schemata: self.many(Self::text),
            enable_monitoring: self.some(|dice| dice.below(2) == 0),
            ..IntelRdt::default()
        }
    }

    fn edits(&mut self) -> ContainerEdits {
        ContainerEdits {
            env: self.many(Self::env),
            device_nodes: self.many(Self::node),
            net_devices: (0..self.below(3))
                .map(|number| NetDevice {
                    host_interface_name: format!("eth{number}"),
                    name: format!("{number}"),
                })
                .collect(),
            hooks: self.many(Self::hook),
            mounts: self.many(Self::mount),
            intel_rdt: self.some(Self::rdt),
            additional_gids: self.many(Self::number),
        }
    }

    /// A valid spec.
    pub(crate) fn spec(&mut self) -> Spec {
        let device = |dice: &mut Self, number: usize| Device {
            name: ["0", "yes", "0:1", "1e3", "GPU-1", "007"][number].to_owned(),
            annotations: (0..dice.below(2))
                .map(|_| (dice.text(), dice.text()))
                .collect(),
            container_edits: ContainerEdits {
                env: vec![dice.env()],
                ..dice.edits()
            },
        };
        Spec {
            cdi_version: "1.1.0".to_owned(),
            kind: "vendor.example/dev".to_owned(),
            annotations: (0..self.below(3))
                .map(|_| (self.text(), self.text()))
                .collect(),
            container_edits: self.edits(),
            devices: (0..=self.below(6))
                .map(|number| device(self, number))
                .collect(),
        }
    }
}
