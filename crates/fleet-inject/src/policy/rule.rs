//! `[[rule]]`: other limits for some containers.
//!
//! A rule is about what a container may ask for, and told by what its engine says of it. What an engine has put into the
//! spec itself is no request, and no rule takes it away.

use std::fmt;

use serde_json::Value;

/// Where the CRI servers state a pod's namespace. No annotation of a pod can change them.
const NAMESPACE: [&str; 2] = [
    "io.kubernetes.cri-o.Namespace",
    "io.kubernetes.cri.sandbox-namespace",
];

/// One rule; without any condition it fits every container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Kubernetes namespaces, of which one must be the pod's; `*` at the end stands for any rest.
    pub namespaces: Option<Vec<String>>,
    /// Annotations that must all be there: `KEY=VALUE`, or `KEY` for any value.
    pub annotations: Vec<String>,
    /// What may be asked for, in place of `[allow]`.
    pub allow: Vec<String>,
}

impl Rule {
    pub(super) fn fits(&self, spec: &Value) -> bool {
        let annotation = |key: &str| spec.get("annotations")?.get(key)?.as_str();
        let namespace = NAMESPACE.iter().find_map(|key| annotation(key));
        let in_namespace = self.namespaces.as_ref().is_none_or(|wanted| {
            namespace.is_some_and(|name| wanted.iter().any(|wanted| is_like(name, wanted)))
        });
        in_namespace
            && self
                .annotations
                .iter()
                .all(|wanted| match wanted.split_once('=') {
                    Some((key, value)) => annotation(key) == Some(value),
                    None => annotation(wanted).is_some(),
                })
    }
}

/// For a hint: by its conditions, as they stand in the file.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the [[rule]]")?;
        if let Some(namespaces) = &self.namespaces {
            write!(f, " with namespaces = {namespaces:?}")?;
        }
        if !self.annotations.is_empty() {
            write!(f, " with annotations = {:?}", self.annotations)?;
        }
        Ok(())
    }
}

fn is_like(name: &str, wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(namespaces: Option<&[&str]>, annotations: &[&str]) -> Rule {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Rule {
            namespaces: namespaces.map(own),
            annotations: own(annotations),
            allow: Vec::new(),
        }
    }

    #[test]
    fn every_condition_counts() {
        let pod =
            json!({"annotations": {"io.kubernetes.cri-o.Namespace": "ml-train", "tier": "shared"}});
        let containerd = json!({"annotations": {"io.kubernetes.cri.sandbox-namespace": "team-a"}});
        let podman = json!({"annotations": {"tier": "own"}});
        let forged = json!({"annotations": {"io.kubernetes.pod.namespace": "team-a"}});
        let cases = [
            (rule(None, &[]), [true, true, true, true]),
            (rule(Some(&["team-a"]), &[]), [false, true, false, false]),
            (rule(Some(&["x", "ml-*"]), &[]), [true, false, false, false]),
            (rule(Some(&["ml"]), &[]), [false; 4]),
            (rule(Some(&["*"]), &[]), [true, true, false, false]),
            (rule(Some(&[]), &[]), [false; 4]),
            (rule(None, &["tier"]), [true, false, true, false]),
            (rule(None, &["tier=shared"]), [true, false, false, false]),
            (rule(Some(&["ml-*"]), &["tier=own"]), [false; 4]),
        ];
        for (rule, want) in cases {
            let fits = [&pod, &containerd, &podman, &forged].map(|spec| rule.fits(spec));
            assert_eq!(fits, want, "{rule:?}");
        }
        assert!(rule(None, &[]).fits(&json!({"annotations": 1})));
        assert!(!rule(None, &["x"]).fits(&json!(null)));
    }
}
