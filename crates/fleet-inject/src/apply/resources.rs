//! `linux.resources.devices`: rules are read in order and the last one that fits decides.

use serde_json::Value;

use crate::spec;

/// Puts an allow rule last, where it decides, and drops the same rule from where it stood before.
pub(super) fn allow(rules: &mut Vec<Value>, rule: Value) {
    rules.retain(|other| !is_same(other, &rule));
    rules.push(rule);
}

fn is_same(one: &Value, other: &Value) -> bool {
    is_allow(one) == is_allow(other)
        && ["type", "access"]
            .iter()
            .all(|key| spec::text(one, key) == spec::text(other, key))
        && ["major", "minor"]
            .iter()
            .all(|key| number(one, key) == number(other, key))
}

fn is_allow(rule: &Value) -> bool {
    rule.get("allow").and_then(Value::as_bool).unwrap_or(false)
}

/// A number; absent and -1 mean any.
fn number(rule: &Value, key: &str) -> Option<i64> {
    rule.get(key)
        .and_then(Value::as_i64)
        .filter(|number| *number >= 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_stands_once_and_decides() {
        let rule = |minor: i64| json!({"allow": true, "type": "c", "major": 195, "minor": minor, "access": "rwm"});
        let deny_all = json!({"allow": false, "access": "rwm"});
        let narrow = json!({"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"});
        let cases = [
            (vec![], vec![rule(0)]),
            (
                vec![deny_all.clone(), rule(0), rule(1)],
                vec![deny_all.clone(), rule(1), rule(0)],
            ),
            (
                vec![rule(0), deny_all.clone()],
                vec![deny_all.clone(), rule(0)],
            ),
            (
                vec![rule(0), deny_all.clone(), rule(0)],
                vec![deny_all.clone(), rule(0)],
            ),
            (vec![narrow.clone()], vec![narrow, rule(0)]),
        ];
        for (mut rules, want) in cases {
            allow(&mut rules, rule(0));
            assert_eq!(rules, want);
            allow(&mut rules, rule(0));
            assert_eq!(rules, want);
        }
    }
}
