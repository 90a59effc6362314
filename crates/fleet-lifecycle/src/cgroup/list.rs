//! Device rules on cgroup v1: the kernel keeps a default and a list of exceptions from it (kernel
//! `cgroup-v1/devices.rst`, `security/device_cgroup.c`).
//!
//! It differs from rules in order: taking away must name an entry exactly, else nothing happens; `a` means everything,
//! whatever follows it; and a closed list must allow all of an access by one entry. So the rules are folded into the
//! list here, and only the way from the present list to the wanted one is written: a running container never loses
//! a device in between.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::devices::{Kind, READ, Rule, Rules, WRITE, bits, letters};
use super::file::put;
use super::{CgroupError, Result, io_error};

/// What an exception is for; numbers that are absent stand for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    block: bool,
    major: Option<u32>,
    minor: Option<u32>,
}

impl Key {
    fn covers(&self, other: &Self) -> bool {
        let wider = |mine: Option<u32>, theirs: Option<u32>| mine.is_none() || mine == theirs;
        self.block == other.block
            && wider(self.major, other.major)
            && wider(self.minor, other.minor)
    }

    /// The devices that both are for.
    fn common(&self, other: &Self) -> Option<Self> {
        let both = |a: Option<u32>, b: Option<u32>| match (a, b) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => Some(a.or(b)),
        };
        let (major, minor) = (
            both(self.major, other.major)?,
            both(self.minor, other.minor)?,
        );
        (self.block == other.block).then_some(Self {
            block: self.block,
            major,
            minor,
        })
    }

    /// As `devices.allow` takes it.
    fn line(&self, access: u8) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = if self.block { 'b' } else { 'c' };
        format!(
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            letters(access)
        )
    }
}

/// A default and the exceptions from it, with the access that each is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct List {
    open: bool,
    exceptions: BTreeMap<Key, u8>,
}

impl List {
    fn from_rules(rules: &Rules) -> Result<Self> {
        let mut list = Self::default();
        for rule in &rules.0 {
            list.fold(rule)?;
        }
        if !list.open {
            list.join_accesses();
        }
        Ok(list)
    }

    fn fold(&mut self, rule: &Rule) -> Result<()> {
        if rule.is_total() {
            *self = Self {
                open: rule.allow,
                exceptions: BTreeMap::new(),
            };
            return Ok(());
        }
        let kinds: &[bool] = match rule.kind {
            Kind::All => &[true, false],
            Kind::Block => &[true],
            Kind::Char => &[false],
        };
        for block in kinds {
            let key = Key {
                block: *block,
                major: rule.major,
                minor: rule.minor,
            };
            if rule.allow == self.open {
                self.take(key, rule)?;
            } else {
                *self.exceptions.entry(key).or_default() |= rule.access;
            }
        }
        Ok(())
    }

    /// Takes exceptions back.
    fn take(&mut self, key: Key, rule: &Rule) -> Result<()> {
        for (known, access) in &mut self.exceptions {
            if key.covers(known) {
                *access &= !rule.access;
            } else if *access & rule.access != 0 && key.common(known).is_some() {
                let (this, that) = if rule.allow {
                    ("allows", "denying")
                } else {
                    ("denies", "allowing")
                };
                return Err(CgroupError::Invalid(format!(
                    "`linux.resources.devices` {this} \"{rule}\" after {that} \"{}\": cgroup v1 has no way to say that; \
                     hint: list the allowed devices one by one",
                    known.line(*access)
                )));
            }
        }
        self.exceptions.retain(|_, access| *access != 0);
        Ok(())
    }

    /// One entry must allow reading and writing together where several allow one each. Making a node is never asked
    /// for together with them (`fs/namei.c`).
    fn join_accesses(&mut self) {
        loop {
            let entries: Vec<(Key, u8)> = self
                .exceptions
                .iter()
                .map(|(key, access)| (*key, *access))
                .collect();
            let mut joined = false;
            for (at, (key, access)) in entries.iter().enumerate() {
                for (other, more) in &entries[at + 1..] {
                    let (mine, theirs) = (access & (READ | WRITE), more & (READ | WRITE));
                    let split = mine | theirs != mine && mine | theirs != theirs;
                    let Some(common) = key.common(other).filter(|_| split) else {
                        continue;
                    };
                    let entry = self.exceptions.entry(common).or_default();
                    joined |= *entry & (READ | WRITE) != READ | WRITE;
                    *entry |= READ | WRITE;
                }
            }
            if !joined {
                return;
            }
        }
    }

    /// Reads `devices.list`; an open one does not tell its exceptions.
    fn parse(text: &str) -> Option<Self> {
        let mut list = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
            let (major, minor) = numbers.split_once(':')?;
            let number = |word: &str| {
                if word == "*" {
                    Some(None)
                } else {
                    word.parse().ok().map(Some)
                }
            };
            let block = match kind {
                "a" => {
                    return Some(Self {
                        open: true,
                        exceptions: BTreeMap::new(),
                    });
                }
                "b" => true,
                "c" => false,
                _ => return None,
            };
            let key = Key {
                block,
                major: number(major)?,
                minor: number(minor)?,
            };
            *list.exceptions.entry(key).or_default() |= bits(access)?;
        }
        Some(list)
    }

    /// The lines that lead from this list to `wanted`: file and text.
    fn steps(&self, wanted: &Self) -> Vec<(&'static str, String)> {
        let (flip, undo) = if wanted.open {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let none = BTreeMap::new();
        let mut steps = Vec::new();
        let known = if self.open || wanted.open {
            steps.push((flip, "a".to_owned()));
            &none
        } else {
            &self.exceptions
        };
        let access = |of: &BTreeMap<Key, u8>, key: &Key| of.get(key).copied().unwrap_or(0);
        for (key, bits) in &wanted.exceptions {
            if bits & !access(known, key) != 0 {
                steps.push((undo, key.line(*bits)));
            }
        }
        for (key, bits) in known {
            let extra = bits & !access(&wanted.exceptions, key);
            if extra != 0 {
                steps.push((flip, key.line(extra)));
            }
        }
        steps
    }
}

/// Brings a v1 devices cgroup to the rules, and reads back that it is so.
pub(super) fn write(leaf: &Path, rules: &Rules) -> Result<()> {
    let wanted = List::from_rules(rules)?;
    for (file, line) in read(leaf)?.steps(&wanted) {
        let file = leaf.join(file);
        put(&file, &line).map_err(io_error(&format!("write \"{line}\" to"), &file))?;
    }
    let now = read(leaf)?;
    let same = if wanted.open { now.open } else { now == wanted };
    if same {
        return Ok(());
    }
    Err(CgroupError::Invalid(format!(
        "device rules of cgroup `{}` are not what was written",
        leaf.display()
    )))
}

fn read(leaf: &Path) -> Result<List> {
    let file = leaf.join("devices.list");
    let text = fs::read_to_string(&file).map_err(io_error("read", &file))?;
    List::parse(&text)
        .ok_or_else(|| CgroupError::Invalid(format!("`{}` has an unknown form", file.display())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::devices::model::{Dice, permits};
    use super::super::devices::{ALL, MKNOD};
    use super::*;

    /// The kernel's side: what `devices.allow` and `devices.deny` do, and how an access is decided.
    #[derive(Default)]
    struct Kernel {
        open: bool,
        exceptions: Vec<(Key, u8)>,
    }

    impl Kernel {
        fn write(&mut self, file: &str, line: &str) {
            let allow = file == "devices.allow";
            if line.starts_with('a') {
                *self = Self {
                    open: allow,
                    exceptions: Vec::new(),
                };
                return;
            }
            let parsed = List::parse(line).unwrap();
            let (key, access) = parsed.exceptions.into_iter().next().unwrap();
            if allow == self.open {
                for (known, bits) in &mut self.exceptions {
                    if *known == key {
                        *bits &= !access;
                    }
                }
                self.exceptions.retain(|(_, bits)| *bits != 0);
            } else if let Some((_, bits)) =
                self.exceptions.iter_mut().find(|(known, _)| *known == key)
            {
                *bits |= access;
            } else {
                self.exceptions.push((key, access));
            }
        }

        fn list(&self) -> String {
            if self.open {
                return "a *:* rwm\n".to_owned();
            }
            self.exceptions
                .iter()
                .map(|(key, access)| format!("{}\n", key.line(*access)))
                .collect()
        }

        fn permits(&self, kind: Kind, access: u8, major: u32, minor: u32) -> bool {
            let this = Key {
                block: kind == Kind::Block,
                major: Some(major),
                minor: Some(minor),
            };
            let mut covering = self.exceptions.iter().filter(|(key, _)| key.covers(&this));
            if self.open {
                !covering.any(|(_, bits)| access & bits != 0)
            } else {
                covering.any(|(_, bits)| access & !bits == 0)
            }
        }
    }

    fn lines(list: &[serde_json::Value]) -> Vec<(&'static str, String)> {
        let open = List {
            open: true,
            ..List::default()
        };
        open.steps(&List::from_rules(&Rules::from_spec(list).unwrap()).unwrap())
    }

    #[test]
    fn kernel_and_model_agree() {
        let mut dice = Dice(7);
        let (mut checked, mut refused) = (0_u32, 0_u32);
        let mut kernel = Kernel {
            open: true,
            exceptions: Vec::new(),
        };
        for _ in 0..4000 {
            let given = dice.spec();
            let rules = Rules::from_spec(&given).unwrap();
            let Ok(wanted) = List::from_rules(&rules) else {
                refused += 1;
                continue;
            };
            // From whatever the list was before, as an update does.
            for (file, line) in List::parse(&kernel.list()).unwrap().steps(&wanted) {
                kernel.write(file, &line);
            }
            if !wanted.open {
                assert_eq!(List::parse(&kernel.list()).unwrap(), wanted, "{given:?}");
            }
            for kind in [Kind::Block, Kind::Char] {
                for access in [MKNOD, READ, WRITE, READ | WRITE] {
                    for (major, minor) in
                        [(1, 1), (1, 3), (3, 1), (195, 3), (195, 7), (7, 195), (7, 8)]
                    {
                        let want = permits(&rules, kind, access, major, minor);
                        assert_eq!(
                            kernel.permits(kind, access, major, minor),
                            want,
                            "{given:?} {kind:?} {access} {major}:{minor}"
                        );
                        checked += 1;
                    }
                }
            }
        }
        assert!(checked > 100_000 && refused > 100, "{checked} {refused}");
    }

    #[test]
    fn a_fresh_cgroup_is_closed_first() {
        let steps =
            lines(&[json!({"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"})]);
        assert_eq!(steps[0], ("devices.deny", "a".to_owned()));
        assert!(steps.contains(&("devices.allow", "c 195:0 rw".to_owned())));
        assert!(steps.contains(&("devices.allow", "c *:* m".to_owned())));
        assert_eq!(
            lines(&[json!({"allow": true})]),
            [("devices.allow", "a".to_owned())]
        );
    }

    #[test]
    fn an_update_writes_the_difference_alone() {
        let list = |minors: &[u32]| {
            let rules: Vec<_> = minors.iter().map(|n| json!({"allow": true, "type": "c", "major": 195, "minor": n, "access": "rw"})).collect();
            List::from_rules(&Rules::from_spec(&rules).unwrap()).unwrap()
        };
        let steps = list(&[0, 1]).steps(&list(&[1, 2]));
        assert_eq!(
            steps,
            [
                ("devices.allow", "c 195:2 rw".to_owned()),
                ("devices.deny", "c 195:0 rw".to_owned())
            ]
        );
        assert_eq!(list(&[0]).steps(&list(&[0])), []);
    }

    #[test]
    fn a_hole_is_refused_and_a_cover_is_not() {
        let rule = |allow: bool, minor: i64| json!({"allow": allow, "type": "c", "major": 195, "minor": minor, "access": "rw"});
        let fold = |list: &[serde_json::Value]| List::from_rules(&Rules::from_spec(list).unwrap());
        let text = fold(&[rule(true, -1), rule(false, 1)])
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("c 195:1 rw") && text.contains("c 195:* rw"),
            "{text}"
        );
        let covered = fold(&[rule(true, 1), rule(false, -1)]).unwrap();
        assert!(!covered.exceptions.keys().any(|key| key.major == Some(195)));
    }

    #[test]
    fn kernel_lists() {
        assert!(List::parse("a *:* rwm\n").unwrap().open);
        let list = List::parse("c 1:3 rwm\nb *:* m\n").unwrap();
        assert_eq!(list.exceptions.len(), 2);
        assert_eq!(list.exceptions.values().copied().max(), Some(ALL));
        assert_eq!(List::parse("c 1 rwm"), None);
        assert_eq!(List::parse("x 1:3 rwm"), None);
        assert_eq!(List::parse(""), Some(List::default()), "nothing is allowed");
    }
}
