//! The container id: a directory name that came from outside.

use crate::error::{Error, Result};

/// Longest id accepted, in bytes; the id is a file name and a cgroup name.
const MAX_LEN: usize = 255;

/// Accepts what runc accepts (`[A-Za-z0-9_+.-]`), so that the id can never leave the state root.
///
/// # Errors
/// [`Error::Invalid`] for an empty, over-long, dotted or otherwise unsafe id.
pub fn check(id: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > MAX_LEN || id.starts_with('.') || !id.chars().all(plain) {
        let shown: String = id
            .chars()
            .take(64)
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        let which = id.chars().find(|c| !plain(*c) && !c.is_control());
        let which = which.map_or_else(String::new, |c| {
            format!(": invalid character `{c}` in the ID")
        });
        return Err(Error::Invalid(format!(
            "invalid container id `{shown}`{which}; hint: 1 to {MAX_LEN} letters, digits, `_`, `+`, `-` or `.`, not starting with `.`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids() {
        for good in ["a", "A-1_b+c.d", &"x".repeat(255)] {
            assert!(super::check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "a b",
            "a\0",
            "../x",
            "é",
            &"x".repeat(256),
        ] {
            assert!(super::check(bad).is_err(), "{bad:?}");
        }
        let told = super::check("a/b").unwrap_err().to_string();
        assert!(told.contains("invalid character `/` in the ID"), "{told}");
    }
}
