//! `linux.personality` (`runtime-spec config-linux.md#personality`, `man 2 personality`).

use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::spec;
use crate::sys::process::set_personality;

/// `linux/personality.h`.
const DOMAINS: [(&str, u32); 2] = [("LINUX", 0), ("LINUX32", 8)];

/// The execution domain of a container's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Personality(u32);

impl Personality {
    /// Reads it from a container's spec; `None` where it says nothing of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a domain that there is not.
    pub(crate) fn from_spec(full: &Value) -> Result<Option<Self>> {
        let Some(given) = full.pointer("/linux/personality").filter(|p| !p.is_null()) else {
            return Ok(None);
        };
        let name = spec::text(given, "/domain").unwrap_or_default();
        match DOMAINS.iter().find(|(known, _)| *known == name) {
            Some((_, number)) => Ok(Some(Self(*number))),
            None => Err(Error::Invalid(format!(
                "`linux.personality.domain` \"{name}\" is unknown; hint: there are {}",
                DOMAINS.map(|(name, _)| name).join(", ")
            ))),
        }
    }

    /// Sets it for the calling process.
    ///
    /// # Errors
    /// As `man 2 personality`.
    pub(crate) fn apply(self) -> Result<()> {
        set_personality(self.0).op(|| "set `linux.personality`")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn domains() {
        let read = |given: Value| Personality::from_spec(&json!({"linux": {"personality": given}}));
        assert_eq!(read(json!(null)).unwrap(), None);
        let old = read(json!({"domain": "LINUX32"})).unwrap();
        assert_eq!(old, Some(Personality(8)));
        for bad in [json!({}), json!({"domain": "PER_SVR4"})] {
            let err = read(bad).unwrap_err().to_string();
            assert!(err.contains("linux.personality.domain"), "{err}");
        }
    }
}
