//! Device rules: the spec's list in order, then the default devices that every container may use.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{CgroupError, Result, io_error};

/// Access bits, as the kernel's `BPF_DEVCG_ACC_*` (`<linux/bpf.h>`).
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Kind of a device, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    All,
    Block,
    Char,
}

/// One rule; a number that is absent stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: u8,
}

/// The whole list; a later rule wins over an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules(pub(super) Vec<Rule>);

/// `runtime-spec config-linux.md#default-devices`, terminals (5:0, 5:2, 136:*), and making any node: to make one is
/// harmless while it cannot be opened. 5:1 is the console.
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, u8); 11] = [
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL),
    (Kind::Char, Some(1), Some(5), ALL),
    (Kind::Char, Some(1), Some(7), ALL),
    (Kind::Char, Some(1), Some(8), ALL),
    (Kind::Char, Some(1), Some(9), ALL),
    (Kind::Char, Some(5), Some(0), ALL),
    (Kind::Char, Some(5), Some(1), ALL),
    (Kind::Char, Some(5), Some(2), ALL),
    (Kind::Char, Some(136), None, ALL),
];

impl Rules {
    /// Deny all, the given rules, the defaults.
    pub(super) fn from_spec(given: &[Value]) -> Result<Self> {
        let mut all = vec![Rule {
            allow: false,
            kind: Kind::All,
            major: None,
            minor: None,
            access: ALL,
        }];
        for rule in given {
            all.push(parse(rule)?);
        }
        // A list that ends by allowing everything (a privileged container) is left as it is.
        let open = all.last().is_some_and(|r| {
            r.allow
                && r.kind == Kind::All
                && r.access == ALL
                && r.major.is_none()
                && r.minor.is_none()
        });
        if !open {
            all.extend(DEFAULTS.iter().map(|(kind, major, minor, access)| Rule {
                allow: true,
                kind: *kind,
                major: *major,
                minor: *minor,
                access: *access,
            }));
        }
        Ok(Self(all))
    }
}

fn parse(rule: &Value) -> Result<Rule> {
    let invalid = || {
        CgroupError::Invalid(format!(
            "`linux.resources.devices` has the unusable entry {rule}"
        ))
    };
    let number = |key: &str| match rule.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64() {
            Some(-1) => Ok(None),
            Some(n) => u32::try_from(n).map(Some).map_err(|_| invalid()),
            None => Err(invalid()),
        },
    };
    let kind = match rule.get("type").and_then(Value::as_str).unwrap_or("a") {
        "a" | "" => Kind::All,
        "b" => Kind::Block,
        "c" | "u" => Kind::Char,
        _ => return Err(invalid()),
    };
    let access = match rule.get("access").and_then(Value::as_str) {
        None | Some("") => ALL,
        Some(letters) => letters.chars().try_fold(0, |bits, letter| match letter {
            'r' => Ok(bits | READ),
            'w' => Ok(bits | WRITE),
            'm' => Ok(bits | MKNOD),
            _ => Err(invalid()),
        })?,
    };
    let allow = rule
        .get("allow")
        .and_then(Value::as_bool)
        .ok_or_else(invalid)?;
    Ok(Rule {
        allow,
        kind,
        major: number("major")?,
        minor: number("minor")?,
        access,
    })
}

impl Rule {
    /// The line that v1's `devices.allow` and `devices.deny` take.
    fn line(&self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let letters: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|(_, l)| *l)
            .collect();
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        format!(
            "{kind} {}:{} {letters}",
            number(self.major),
            number(self.minor)
        )
    }

    /// v1 has no "all kinds" with numbers: such a rule becomes two.
    fn lines(&self) -> Vec<String> {
        match (self.kind, self.major, self.minor, self.access) {
            (Kind::All, None, None, ALL) => vec!["a".to_owned()],
            (Kind::All, ..) => [Kind::Block, Kind::Char]
                .iter()
                .map(|kind| {
                    Self {
                        kind: *kind,
                        ..*self
                    }
                    .line()
                })
                .collect(),
            _ => vec![self.line()],
        }
    }
}

/// Writes the list to a v1 devices cgroup, in order.
pub(super) fn write_v1(leaf: &Path, rules: &Rules) -> Result<()> {
    for rule in &rules.0 {
        let file = leaf.join(if rule.allow {
            "devices.allow"
        } else {
            "devices.deny"
        });
        for line in rule.lines() {
            fs::write(&file, &line).map_err(io_error(&format!("write \"{line}\" to"), &file))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_of_v1() {
        let line = |rule: Value| parse(&rule).unwrap().lines();
        assert_eq!(
            line(json!({"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"})),
            ["c 195:0 rw"]
        );
        assert_eq!(line(json!({"allow": false, "access": "rwm"})), ["a"]);
        assert_eq!(
            line(json!({"allow": true, "type": "a", "major": 1})),
            ["b 1:* rwm", "c 1:* rwm"]
        );
        assert_eq!(
            line(json!({"allow": true, "type": "b", "major": -1, "minor": -1, "access": "m"})),
            ["b *:* m"]
        );
    }

    #[test]
    fn bad_rules_are_refused() {
        for bad in [
            json!({"type": "c"}),
            json!({"allow": true, "type": "q"}),
            json!({"allow": true, "access": "x"}),
            json!({"allow": true, "major": -2}),
            json!({"allow": true, "major": "1"}),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_begins_closed_and_ends_with_defaults() {
        let rules =
            Rules::from_spec(&[json!({"allow": true, "type": "c", "major": 195, "minor": 0})])
                .unwrap();
        assert!(!rules.0[0].allow && rules.0[0].kind == Kind::All);
        assert!(
            rules
                .0
                .iter()
                .any(|r| r.major == Some(1) && r.minor == Some(3))
        );
        let open = Rules::from_spec(&[json!({"allow": true, "access": "rwm"})]).unwrap();
        assert_eq!(open.0.len(), 2, "a privileged list stays open");
    }
}
