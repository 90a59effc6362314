//! Device rules as systemd has them: a list of what is allowed, and nothing else.
//!
//! The exact rules are enforced by our own program (v2) or list (v1) in any case. systemd's list, which it puts in
//! force anew on every `daemon-reload`, must therefore never be narrower than those: a GPU would vanish from a running
//! container. It may be wider, where rules take away a part of what others gave.

use std::collections::BTreeMap;

use super::property::Property;
use super::wire::Value;
use crate::cgroup::devices::{Kind, Rule, Rules, letters};

/// `DevicePolicy` and `DeviceAllow` (`man 5 systemd.resource-control`).
pub(super) fn properties(rules: &Rules) -> Vec<Property> {
    let (policy, entries) = match allowed(rules) {
        Some(allowed) => ("strict", allowed),
        None => ("auto", BTreeMap::new()),
    };
    let items = entries.iter().map(|(node, access)| {
        Value::Struct(vec![Value::text(node), Value::Text(letters(*access))])
    });
    vec![
        Property::new("DevicePolicy", Value::text(policy)),
        Property::new(
            "DeviceAllow",
            Value::Array("(ss)".to_owned(), items.collect()),
        ),
    ]
}

/// Nodes and the access to them; `None` when everything is allowed but for what is denied.
fn allowed(rules: &Rules) -> Option<BTreeMap<String, u8>> {
    let mut entries = Some(BTreeMap::new());
    for rule in &rules.0 {
        match (rule.is_total(), rule.allow) {
            (true, true) => entries = None,
            (true, false) => entries = Some(BTreeMap::new()),
            (false, true) => {
                if let Some(entries) = &mut entries {
                    for node in nodes(rule) {
                        *entries.entry(node).or_insert(0) |= rule.access;
                    }
                }
            }
            // A part is taken away: our own rules see to that.
            (false, false) => {}
        }
    }
    entries
}

/// By number: a path would be looked up, and need not exist or be the same in a moment. A rule for one minor number of
/// every major one has no form here; the wider one stands for it.
fn nodes(rule: &Rule) -> Vec<String> {
    let kinds: &[&str] = match rule.kind {
        Kind::All => &["char", "block"],
        Kind::Char => &["char"],
        Kind::Block => &["block"],
    };
    let node = |kind: &&str| match (rule.major, rule.minor) {
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => format!("{kind}-{major}"),
        (None, _) => format!("{kind}-*"),
    };
    kinds.iter().map(node).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gpu_rules_by_number() {
        let rules = Rules::from_spec(&[
            json!({"allow": false, "access": "rwm"}),
            json!({"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"}),
            json!({"allow": true, "type": "c", "major": 195, "minor": 255, "access": "rw"}),
            json!({"allow": false, "type": "c", "major": 195, "minor": 1, "access": "rw"}),
        ])
        .unwrap();
        let allowed = allowed(&rules).unwrap();
        let letters_of = |node: &str| allowed.get(node).map(|access| letters(*access));
        assert_eq!(letters_of("/dev/char/195:0").as_deref(), Some("rw"));
        assert_eq!(letters_of("/dev/char/1:3").as_deref(), Some("rwm"));
        assert_eq!(letters_of("char-136").as_deref(), Some("rwm"));
        assert_eq!(letters_of("char-*").as_deref(), Some("m"));
        assert_eq!(letters_of("/dev/char/195:1"), None);
    }

    #[test]
    fn never_narrower_than_the_rules() {
        use crate::cgroup::devices::model::{Dice, permits};
        let mut dice = Dice(7);
        for _ in 0..2000 {
            let rules = Rules::from_spec(&dice.spec()).unwrap();
            let Some(allowed) = allowed(&rules) else {
                continue;
            };
            for (kind, name) in [(Kind::Char, "char"), (Kind::Block, "block")] {
                let (major, minor) = (*dice.pick(&[1, 3, 195, 7]), *dice.pick(&[1, 3, 195]));
                for access in 1..=7_u8 {
                    let open: u8 = [
                        format!("/dev/{name}/{major}:{minor}"),
                        format!("{name}-{major}"),
                        format!("{name}-*"),
                    ]
                    .iter()
                    .filter_map(|node| allowed.get(node))
                    .fold(0, |all, one| all | one);
                    assert!(
                        !permits(&rules, kind, access, major, minor) || access & !open == 0,
                        "{rules:?} {name} {major}:{minor} {access}"
                    );
                }
            }
        }
    }

    #[test]
    fn open_lists_have_no_policy() {
        let rules = Rules::from_spec(&[json!({"allow": true, "access": "rwm"})]).unwrap();
        let properties = properties(&rules);
        assert_eq!(properties[0].value, Value::text("auto"));
    }
}
