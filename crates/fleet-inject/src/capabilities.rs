//! `NVIDIA_DRIVER_CAPABILITIES`: which part of the driver a container gets.
//!
//! Not here: which file belongs to which part ([`table`]), and what is taken out of a CDI spec's edits ([`filter`]).

pub(crate) mod filter;
mod table;

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::image;
use crate::policy::Policy;

/// The variable by which an image or a user names them.
pub(crate) const VARIABLE: &str = "NVIDIA_DRIVER_CAPABILITIES";

/// A set of driver capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capabilities(u8);

/// Every name, in the order in which they are printed.
const NAMES: [(&str, Capabilities); 7] = [
    ("compat32", Capabilities::COMPAT32),
    ("compute", Capabilities::COMPUTE),
    ("display", Capabilities::DISPLAY),
    ("graphics", Capabilities::GRAPHICS),
    ("ngx", Capabilities::NGX),
    ("utility", Capabilities::UTILITY),
    ("video", Capabilities::VIDEO),
];

impl Capabilities {
    /// No capability.
    pub const NONE: Self = Self(0);
    /// CUDA and OpenCL.
    pub const COMPUTE: Self = Self(1);
    /// `nvidia-smi` and NVML.
    pub const UTILITY: Self = Self(1 << 1);
    /// Video codecs.
    pub const VIDEO: Self = Self(1 << 2);
    /// OpenGL and Vulkan.
    pub const GRAPHICS: Self = Self(1 << 3);
    /// X11.
    pub const DISPLAY: Self = Self(1 << 4);
    /// NGX.
    pub const NGX: Self = Self(1 << 5);
    /// 32-bit libraries of the others.
    pub const COMPAT32: Self = Self(1 << 6);
    /// Everything.
    pub const ALL: Self = Self(0x7f);

    /// Each one with its name, sorted.
    pub fn each() -> impl Iterator<Item = (&'static str, Self)> {
        NAMES.into_iter()
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set only.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Their names, sorted.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let held = move |(_, one): &(&str, Self)| !self.common(*one).is_none();
        NAMES.into_iter().filter(held).map(|(name, _)| name)
    }

    /// Reads names; `all` is everything. The error is the first name that is none.
    pub(crate) fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut set = Self::NONE;
        for name in names {
            let known = NAMES.iter().find(|(known, _)| *known == name);
            set = match (name, known) {
                ("all", _) => Self::ALL,
                (_, Some((_, one))) => set.with(*one),
                (_, None) => return Err(name),
            };
        }
        Ok(set)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities({self})")
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

/// Which capabilities a container gets, and what says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it gets.
    pub wanted: Capabilities,
    /// The variable or setting, as it is written.
    pub because: String,
}

/// Removes from edits of NVIDIA's driver what none of the capabilities needs.
pub fn limit(edits: &mut fleet_cdi::ContainerEdits, wanted: Capabilities) {
    drop(filter::apply(edits, wanted));
}

/// A capability that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// No capability of that name.
    #[error(
        "{VARIABLE} names {name}, which is no driver capability; hint: known are all, {}",
        Capabilities::ALL
    )]
    Unknown {
        /// As written.
        name: String,
    },
    /// The operator does not offer it.
    #[error(
        "{VARIABLE} asks for {asked}, which `supported-driver-capabilities` does not offer; \
         hint: it offers {supported}"
    )]
    Unsupported {
        /// What is not offered.
        asked: Capabilities,
        /// What is.
        supported: Capabilities,
    },
}

/// Reads what a container asks for. `None` means that nothing is left out.
pub(crate) fn of_spec(spec: &Value, policy: &Policy) -> Result<Option<Limit>, CapabilityError> {
    let settings = &policy.capabilities;
    if settings.ignore {
        return Ok(None);
    }
    let value = image::env(spec, VARIABLE).unwrap_or_default();
    let items: Vec<&str> = value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect();
    let (wanted, because) = if !items.is_empty() {
        let wanted = asked(&items, settings.supported)?;
        (wanted, format!("{VARIABLE}={}", items.join(",")))
    } else if image::is_legacy_cuda(spec) {
        let because = "supported-driver-capabilities".to_owned();
        (settings.supported, because)
    } else {
        let wanted = settings.usual.common(settings.supported);
        (wanted, "driver-capabilities".to_owned())
    };
    Ok((wanted != Capabilities::ALL).then_some(Limit { wanted, because }))
}

fn asked(items: &[&str], supported: Capabilities) -> Result<Capabilities, CapabilityError> {
    let named = Capabilities::of_names(items.iter().copied());
    let named = named.map_err(|name| CapabilityError::Unknown {
        name: crate::request::shown(name),
    })?;
    // `all` is whatever there is; only what is named must be there.
    if items.contains(&"all") {
        return Ok(supported);
    }
    match named.without(supported) {
        missing if missing.is_none() => Ok(named),
        asked => Err(CapabilityError::Unsupported { asked, supported }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::CapabilityPolicy;

    fn with(env: &[&str]) -> Value {
        json!({"process": {"env": env}})
    }

    fn wanted(spec: &Value, policy: &Policy) -> String {
        let limit = of_spec(spec, policy).unwrap();
        limit.map_or_else(|| "everything".to_owned(), |limit| limit.wanted.to_string())
    }

    #[test]
    fn the_variable_is_a_list_of_names() {
        let cases = [
            ("compute,utility", "compute,utility"),
            (" utility , ,compute,", "compute,utility"),
            ("compute,all", "everything"),
            ("all", "everything"),
            ("", "everything"),
            (",", "everything"),
            ("display", "display"),
        ];
        for (value, want) in cases {
            let spec = with(&[&format!("NVIDIA_DRIVER_CAPABILITIES={value}")]);
            assert_eq!(wanted(&spec, &Policy::default()), want, "{value:?}");
        }
        assert_eq!(wanted(&with(&[]), &Policy::default()), "everything");
    }

    #[test]
    fn a_name_that_is_none_is_an_error_that_lists_the_others() {
        let err = |value: &str| {
            let spec = with(&[&format!("NVIDIA_DRIVER_CAPABILITIES={value}")]);
            of_spec(&spec, &Policy::default()).unwrap_err().to_string()
        };
        assert_eq!(
            err("compute,vidoe"),
            "NVIDIA_DRIVER_CAPABILITIES names vidoe, which is no driver capability; hint: known are all, \
             compat32,compute,display,graphics,ngx,utility,video"
        );
        let hostile = err("a\nb\u{1b}[31m");
        assert!(!hostile.contains(['\n', '\u{1b}']), "{hostile}");
    }

    #[test]
    fn settings_bound_what_is_given() {
        let server = Capabilities::COMPUTE.with(Capabilities::UTILITY);
        let policy = |usual, supported, ignore| Policy {
            capabilities: CapabilityPolicy {
                usual,
                supported,
                ignore,
            },
            ..Policy::default()
        };
        let bounded = policy(Capabilities::ALL, server, false);
        let all = with(&["NVIDIA_DRIVER_CAPABILITIES=all"]);
        assert_eq!(wanted(&all, &bounded), "compute,utility");
        assert_eq!(wanted(&with(&[]), &bounded), "compute,utility");
        let video = with(&["NVIDIA_DRIVER_CAPABILITIES=video,compute"]);
        assert_eq!(
            of_spec(&video, &bounded).unwrap_err().to_string(),
            "NVIDIA_DRIVER_CAPABILITIES asks for video, which `supported-driver-capabilities` does not offer; \
             hint: it offers compute,utility"
        );
        assert_eq!(
            wanted(&video, &policy(Capabilities::ALL, Capabilities::ALL, true)),
            "everything"
        );
        let usual = policy(server, Capabilities::ALL, false);
        assert_eq!(wanted(&with(&[]), &usual), "compute,utility");
        assert_eq!(
            wanted(&with(&["NVIDIA_DRIVER_CAPABILITIES="]), &usual),
            "compute,utility"
        );
        // Images of the time before the variable expect the whole driver.
        assert_eq!(wanted(&with(&["CUDA_VERSION=8.0"]), &usual), "everything");
        assert_eq!(wanted(&all, &usual), "everything");
    }
}
