//! Devices asked for by annotations (CDI SPEC 1.1.0, "Kubernetes"): `cdi.k8s.io/NAME: dev,dev`.

use crate::name::{NameError, QualifiedName};
use crate::shown::shown;

/// An annotation that asks for something that is no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation \"{key}\": {source}")]
pub struct AnnotationError {
    key: String,
    source: NameError,
}

/// Reads every annotation whose key begins with one of the prefixes; keys in order, values in theirs.
///
/// # Errors
/// One invalid name, also an empty one, makes the whole request invalid, as in the Go library.
pub fn devices_from_annotations<'a>(
    annotations: impl Iterator<Item = (&'a str, &'a str)>,
    prefixes: &[&str],
) -> Result<Vec<(String, Vec<QualifiedName>)>, AnnotationError> {
    let mut asking: Vec<(&str, &str)> = annotations
        .filter(|(key, _)| prefixes.iter().any(|p| key.starts_with(p)))
        .collect();
    asking.sort_unstable();
    let names = |key: &str, value: &str| -> Result<Vec<QualifiedName>, AnnotationError> {
        value
            .split(',')
            .map(|name| {
                name.parse().map_err(|source| AnnotationError {
                    key: shown(key),
                    source,
                })
            })
            .collect()
    };
    asking
        .into_iter()
        .map(|(key, value)| Ok((key.to_owned(), names(key, value)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Vec<String>, AnnotationError> {
        let found = devices_from_annotations(pairs.iter().copied(), &["cdi.k8s.io/"])?;
        Ok(found
            .into_iter()
            .flat_map(|(_, names)| names)
            .map(|name| name.to_string())
            .collect())
    }

    #[test]
    fn keys_are_sorted_and_others_ignored() {
        let got = read(&[
            ("cdi.k8s.io/b", "v/c=2"),
            ("other", "v/c=9"),
            ("cdi.k8s.io/a", "v/c=1,v/c=0"),
        ])
        .unwrap();
        assert_eq!(got, ["v/c=1", "v/c=0", "v/c=2"]);
    }

    #[test]
    fn every_prefix_counts() {
        let pairs = [
            ("b.example/x", "v/c=2"),
            ("a.example/x", "v/c=1"),
            ("c.example/x", "?"),
        ];
        let found =
            devices_from_annotations(pairs.into_iter(), &["a.example/", "b.example/"]).unwrap();
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a.example/x", "b.example/x"]);
        let err = devices_from_annotations(pairs.into_iter(), &["c.example/"]).unwrap_err();
        assert_eq!(
            err.to_string(),
            "annotation \"c.example/x\": invalid CDI device name \"?\": it is not of the form vendor/class=name"
        );
    }

    #[test]
    fn one_bad_name_spoils_all() {
        for value in ["", "v/c=1,", "v/c=1, v/c=2", "0", "v/c=../x"] {
            assert!(
                read(&[("cdi.k8s.io/a", value), ("cdi.k8s.io/b", "v/c=1")]).is_err(),
                "{value:?}"
            );
        }
    }
}
