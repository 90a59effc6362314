//! What a container's cgroup lets it open now. cgroup v1 tells it in `devices.list` (kernel `cgroup-v1/devices.rst`); on v2 it is
//! a program in the kernel, which cannot be read back as rules.

use std::path::Path;

use super::gpu::DevNum;
use crate::files::Files;

/// Where the v1 controller is mounted.
const CONTROLLER: &str = "/sys/fs/cgroup/devices";

/// A live set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    major: Option<i64>,
    minor: Option<i64>,
}

impl Rules {
    /// Those of a cgroup; `None` where they cannot be read.
    pub(crate) fn read(files: &Files, cgroup: &str) -> Option<Self> {
        let path = Path::new(CONTROLLER)
            .join(cgroup.trim_start_matches('/'))
            .join("devices.list");
        let text = files.read(&path).ok()??;
        Some(Self(text.lines().filter_map(Rule::parse).collect()))
    }

    /// Whether a character device may be read or written.
    pub(crate) fn allow(&self, device: DevNum) -> bool {
        let is = |rule: Option<i64>, number: i64| rule.is_none_or(|rule| rule == number);
        self.0
            .iter()
            .any(|rule| is(rule.major, device.major) && is(rule.minor, device.minor))
    }
}

impl Rule {
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
            let rules = Rules(text.lines().filter_map(Rule::parse).collect());
            assert_eq!(rules.allow(gpu), allowed, "{text}");
        }
    }
}
