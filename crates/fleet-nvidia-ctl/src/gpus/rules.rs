//! What a container's cgroup lets it open now. cgroup v1 tells it in `devices.list` (kernel `cgroup-v1/devices.rst`); on v2 there
//! are programs in the kernel instead.

use std::path::Path;

use super::gpu::DevNum;
use super::programs::Programs;
use crate::files::Files;

/// Where the v1 controller is mounted.
const CONTROLLER: &str = "/sys/fs/cgroup/devices";
/// Where cgroup v2 is, if it is the only one.
const UNIFIED: &str = "/sys/fs/cgroup";

/// A live set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// cgroup v1.
    Listed(Vec<Rule>),
    /// cgroup v2.
    Programs(Programs),
}

/// A line of `devices.list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    major: Option<i64>,
    minor: Option<i64>,
}

impl Rules {
    /// Those of a cgroup; `None` where they cannot be read.
    pub(crate) fn read(files: &Files, cgroup: &str) -> Option<Self> {
        let cgroup = cgroup.trim_start_matches('/');
        let list = Path::new(CONTROLLER).join(cgroup).join("devices.list");
        if let Ok(Some(text)) = files.read(&list) {
            return Some(Self::listed(&text));
        }
        let unified = Path::new(UNIFIED);
        // The programs are the running kernel's.
        let is_v2 = files.is_this_machine() && files.exists(&unified.join("cgroup.controllers"));
        let programs = is_v2.then(|| Programs::read(&unified.join(cgroup)))?;
        programs.ok().map(Self::Programs)
    }

    fn listed(text: &str) -> Self {
        Self::Listed(text.lines().filter_map(Rule::parse).collect())
    }

    /// Whether a character device may be read or written; `None` where that cannot be told.
    pub(crate) fn allow(&self, device: DevNum) -> Option<bool> {
        match self {
            Self::Listed(rules) => Some(rules.iter().any(|rule| rule.covers(device))),
            Self::Programs(programs) => programs.allow(device),
        }
    }
}

impl Rule {
    fn covers(&self, device: DevNum) -> bool {
        let is = |rule: Option<i64>, number: i64| rule.is_none_or(|rule| rule == number);
        is(self.major, device.major) && is(self.minor, device.minor)
    }

    /// `c 195:0 rw`, `a *:* rwm`. One for making nodes alone opens nothing.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
        let (major, minor) = numbers.split_once(':')?;
        let number = |text: &str| (text != "*").then(|| text.parse().ok());
        if !matches!(kind, "a" | "c") || !access.contains(['r', 'w']) {
            return None;
        }
        Some(Self {
            major: number(major).map_or(Some(None), |number| number.map(Some))?,
            minor: number(minor).map_or(Some(None), |number| number.map(Some))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_that_open_a_character_device_count() {
        let gpu = DevNum {
            major: 195,
            minor: 0,
        };
        for (text, allowed) in [
            ("a *:* rwm", true),
            ("c *:* m\nb *:* m\nc 195:0 rw", true),
            ("c 195:* r", true),
            ("c *:0 w", true),
            ("c *:* m", false),
            ("b *:* rwm", false),
            ("c 195:1 rwm", false),
            ("c 1950:0 rwm\nnonsense\nc x:0 rw", false),
            ("", false),
        ] {
            assert_eq!(Rules::listed(text).allow(gpu), Some(allowed), "{text}");
        }
    }
}
