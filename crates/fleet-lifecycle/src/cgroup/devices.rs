//! Device rules: closed at first, the spec's list in order, then the default devices that every container may use.
//!
//! A later rule wins over an earlier one, for each kind of access on its own: two rules that allow `r` and `w` allow
//! opening for both, and a rule that denies `w` leaves `r` as it was. cgroup v1 ([`super::list`]) and v2
//! ([`super::ebpf`]) are two ways to have this enforced; a list that v1 cannot express is refused there.

use serde_json::Value;

use super::{CgroupError, Result};

/// Access bits, as the kernel has them.
pub(super) use fleet_bpf::context::{MKNOD, READ, WRITE};
pub(super) const ALL: u8 = MKNOD | READ | WRITE;

/// Kind of a device, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl Rule {
    /// Covers every device and access.
    pub(super) fn is_total(&self) -> bool {
        self.kind == Kind::All && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::All => 'a',
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(
            f,
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            letters(self.access)
        )
    }
}

/// Access as `devices.allow` takes it.
pub(super) fn letters(access: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, letter)| *letter)
        .collect()
}

/// The bits of such letters; `None` for any other letter.
pub(super) fn bits(letters: &str) -> Option<u8> {
    letters.chars().try_fold(0, |bits, letter| match letter {
        'r' => Some(bits | READ),
        'w' => Some(bits | WRITE),
        'm' => Some(bits | MKNOD),
        _ => None,
    })
}

/// The whole list, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules(pub(super) Vec<Rule>);

/// `runtime-spec config-linux.md#default-devices`, terminals (5:0 to 5:2, 136:*), `/dev/net/tun` (10:200) as crun and
/// runc, and making any node: to make one is harmless while it cannot be opened.
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, u8); 12] = [
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
    (Kind::Char, Some(10), Some(200), ALL),
];

impl Rules {
    /// Deny all, the given rules, the defaults.
    pub(super) fn from_spec(given: &[Value]) -> Result<Self> {
        let closed = Rule {
            allow: false,
            kind: Kind::All,
            major: None,
            minor: None,
            access: ALL,
        };
        let mut all = vec![closed];
        for rule in given {
            all.push(parse(rule)?);
        }
        // A list that ends by allowing everything (a privileged container) needs no more.
        if !all.last().is_some_and(|rule| rule.allow && rule.is_total()) {
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

    /// Nothing is denied.
    pub(super) fn is_open(&self) -> bool {
        self.0
            .last()
            .is_some_and(|rule| rule.allow && rule.is_total())
    }
}

fn parse(rule: &Value) -> Result<Rule> {
    let invalid = |what: &str| {
        CgroupError::Invalid(format!(
            "`linux.resources.devices` has an unusable `{what}` in the entry {rule}"
        ))
    };
    let text = |key: &str| match rule.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| invalid(key)),
    };
    let number = |key: &str| match rule.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64() {
            Some(-1) => Ok(None),
            Some(n) => u32::try_from(n).map(Some).map_err(|_| invalid(key)),
            None => Err(invalid(key)),
        },
    };
    let kind = match text("type")? {
        "a" | "" => Kind::All,
        "b" => Kind::Block,
        "c" | "u" => Kind::Char,
        _ => return Err(invalid("type")),
    };
    let access = match text("access")? {
        "" => ALL,
        // Letters that mean nothing are passed over, as runc does.
        letters => bits(&letters.replace(|c| !matches!(c, 'r' | 'w' | 'm'), ""))
            .filter(|bits| *bits != 0)
            .ok_or_else(|| invalid("access"))?,
    };
    let allow = rule
        .get("allow")
        .and_then(Value::as_bool)
        .ok_or_else(|| invalid("allow"))?;
    Ok(Rule {
        allow,
        kind,
        major: number("major")?,
        minor: number("minor")?,
        access,
    })
}

/// What the rules say, read one by one: the model that both ways to enforce them are tested against.
#[cfg(test)]
pub(super) mod model {
    use serde_json::json;

    use super::*;

    /// Whether an access is allowed: for each of its bits, the last rule that speaks of it decides.
    pub(in super::super) fn permits(
        rules: &Rules,
        kind: Kind,
        access: u8,
        major: u32,
        minor: u32,
    ) -> bool {
        [MKNOD, READ, WRITE]
            .iter()
            .filter(|bit| access & **bit != 0)
            .all(|bit| {
                let speaks = |rule: &&Rule| {
                    (rule.kind == Kind::All || rule.kind == kind)
                        && rule.major.is_none_or(|n| n == major)
                        && rule.minor.is_none_or(|n| n == minor)
                        && rule.access & bit != 0
                };
                rules
                    .0
                    .iter()
                    .rev()
                    .find(speaks)
                    .is_some_and(|rule| rule.allow)
            })
    }

    /// A small linear generator (Knuth's constants): repeatable, without a dependency.
    pub(in super::super) struct Dice(pub(in super::super) u64);

    impl Dice {
        pub(in super::super) fn below(&mut self, bound: u32) -> u32 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(self.0 >> 33).unwrap() % bound
        }

        pub(in super::super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
            &of[usize::try_from(self.below(u32::try_from(of.len()).unwrap())).unwrap()]
        }

        /// A list of few distinct numbers, so that rules overlap often.
        pub(in super::super) fn spec(&mut self) -> Vec<Value> {
            (0..self.below(7))
                .map(|_| {
                    let number = |dice: &mut Self| {
                        *dice.pick(
                            &[json!(null), json!(-1), json!(1), json!(3), json!(195)]
                                .map(|v| v.as_i64()),
                        )
                    };
                    json!({
                        "allow": self.below(3) != 0,
                        "type": *self.pick(&["a", "b", "c", "c", ""]),
                        "access": *self.pick(&["r", "w", "m", "rw", "rwm", ""]),
                        "major": number(self),
                        "minor": number(self),
                    })
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_as_written() {
        for (rule, want) in [
            (
                json!({"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"}),
                "c 195:0 rw",
            ),
            (json!({"allow": false, "access": "rwm"}), "a *:* rwm"),
            (json!({"allow": true, "type": "a", "major": 1}), "a 1:* rwm"),
            (
                json!({"allow": true, "type": "b", "major": -1, "minor": -1, "access": "m"}),
                "b *:* m",
            ),
            (
                json!({"allow": true, "type": "u", "major": null, "minor": 7, "access": "mwr"}),
                "c *:7 rwm",
            ),
        ] {
            assert_eq!(parse(&rule).unwrap().to_string(), want, "{rule}");
        }
    }

    #[test]
    fn bad_rules_are_refused_by_the_field() {
        for (bad, field) in [
            (json!({"type": "c"}), "allow"),
            (json!({"allow": 1}), "allow"),
            (json!({"allow": true, "type": "q"}), "type"),
            (json!({"allow": true, "type": 3}), "type"),
            (json!({"allow": true, "access": "x"}), "access"),
            (json!({"allow": true, "major": -2}), "major"),
            (json!({"allow": true, "minor": "1"}), "minor"),
            (json!("c 1:3 rwm"), "allow"),
        ] {
            let text = parse(&bad).unwrap_err().to_string();
            assert!(text.contains(&format!("`{field}`")), "{bad}: {text}");
        }
    }

    #[test]
    fn the_list_begins_closed_and_ends_with_defaults() {
        let rules =
            Rules::from_spec(&[json!({"allow": true, "type": "c", "major": 195, "minor": 0})])
                .unwrap();
        assert!(!rules.0[0].allow && rules.0[0].is_total());
        for (major, minor) in [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (5, 0),
            (5, 1),
            (5, 2),
            (136, 77),
            (195, 0),
        ] {
            assert!(
                model::permits(&rules, Kind::Char, READ | WRITE, major, minor),
                "{major}:{minor}"
            );
        }
        assert!(!model::permits(&rules, Kind::Char, READ, 195, 1));
        assert!(
            model::permits(&rules, Kind::Block, MKNOD, 8, 0),
            "a node may be made, not opened"
        );
        assert!(!model::permits(&rules, Kind::Block, READ, 8, 0));
        let open = Rules::from_spec(&[json!({"allow": true, "access": "rwm"})]).unwrap();
        assert!(open.is_open());
        assert_eq!(open.0.len(), 2, "a privileged list stays open");
        assert!(!Rules::from_spec(&[]).unwrap().is_open());
    }

    #[test]
    fn each_access_on_its_own() {
        let rule = |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 195, "minor": 0, "access": access});
        let asked = |list: &[Value], access| {
            model::permits(&Rules::from_spec(list).unwrap(), Kind::Char, access, 195, 0)
        };
        assert!(asked(&[rule(true, "r"), rule(true, "w")], READ | WRITE));
        assert!(!asked(&[rule(true, "rw"), rule(false, "w")], READ | WRITE));
        assert!(asked(&[rule(true, "rw"), rule(false, "w")], READ));
    }
}
