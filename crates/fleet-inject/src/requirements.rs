//! `NVIDIA_REQUIRE_*`: what an image demands of the host's driver before it may start.
//!
//! Each variable is one demand and all must hold. The language is [`language`]'s; the CUDA version of a driver is
//! [`driver`]'s, since nothing is loaded here that could be asked.

mod driver;
mod language;

use std::collections::BTreeMap;

use serde_json::Value;

pub use driver::{GPU_ARCH, GPU_BRAND, Properties};

use crate::policy::Policy;
use crate::request::shown;
use crate::{image, spec};

const PREFIX: &str = "NVIDIA_REQUIRE_";
/// Not a demand: it chooses files on Tegra.
const JETPACK: &str = "NVIDIA_REQUIRE_JETPACK";
const DISABLE: &str = "NVIDIA_DISABLE_REQUIRE";
const CUDA_VERSION: &str = "CUDA_VERSION";

/// What an image demands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// Variable and value, sorted by variable.
    demands: Vec<(String, String)>,
    /// Demands that cannot be read and do not stop the container, one sentence each.
    pub warnings: Vec<String>,
}

/// A demand that the host does not meet, or that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// The driver is too old, or of the wrong kind.
    #[error(
        "the image demands {demand} by {variable}, but the host has {host}; hint: upgrade the driver, \
         or set {DISABLE}=1 to start it all the same"
    )]
    Unmet {
        /// The variable.
        variable: String,
        /// Its value.
        demand: String,
        /// What is known of the host.
        host: String,
    },
    /// Not in the language of demands.
    #[error("{variable}: {why}; hint: set {DISABLE}=1 to start the container without the check")]
    Malformed {
        /// The variable.
        variable: String,
        /// What is wrong.
        why: String,
    },
}

impl Requirements {
    /// Reads the demands of a container; none if the container or the operator turns them off.
    #[must_use]
    pub fn of_spec(container: &Value, policy: &Policy) -> Self {
        let mut found = Self::default();
        if policy.disable_require || image::env(container, DISABLE).is_some_and(is_true) {
            return found;
        }
        let entries = spec::list(container, "/process/env").iter();
        let entries = entries
            .filter_map(Value::as_str)
            .filter_map(|entry| entry.split_once('='));
        // Of duplicates the last one counts.
        let demands: BTreeMap<&str, &str> = entries
            .filter(|(name, _)| name.starts_with(PREFIX) && !name.starts_with(JETPACK))
            .collect();
        let demands = demands
            .into_iter()
            .filter(|(_, value)| !value.trim().is_empty());
        found.demands = demands
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if image::is_legacy_cuda(container) {
            found.legacy(image::env(container, CUDA_VERSION).unwrap_or_default());
        }
        found
    }

    /// An image older than the variables states the CUDA version that it was built with. Since CUDA 11 a driver runs
    /// what was built for any minor version of its major one (NVIDIA's "minor version compatibility"), so only the
    /// latter is demanded: many images of today name their version for other reasons.
    fn legacy(&mut self, version: &str) {
        const FIRST_COMPATIBLE: u32 = 11;
        let demand = match language::Version::parse(version) {
            Some(version) if version.major() >= FIRST_COMPATIBLE => {
                format!("cuda>={}.0", version.major())
            }
            Some(version) => format!("cuda>={}", version.minor()),
            None => {
                self.warnings.push(format!(
                    "{CUDA_VERSION}={} is not a version, the driver is not checked against it",
                    shown(version)
                ));
                return;
            }
        };
        self.demands.push((CUDA_VERSION.to_owned(), demand));
    }

    /// Whether nothing is demanded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.demands.is_empty()
    }

    /// Compares with what is known of the host.
    ///
    /// # Errors
    /// The first demand that is not met or cannot be read.
    pub fn check(&self, host: &Properties) -> Result<(), RequirementError> {
        for (variable, value) in &self.demands {
            let variable = || shown(variable);
            let is_met =
                language::is_met(value, host).map_err(|why| RequirementError::Malformed {
                    variable: variable(),
                    why,
                })?;
            if !is_met {
                return Err(RequirementError::Unmet {
                    variable: variable(),
                    demand: shown(value),
                    host: host.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// As Go's `strconv.ParseBool`, by which NVIDIA's runtime reads the variable.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "TRUE" | "true" | "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CUDA_12_4: &str = "NVIDIA_REQUIRE_CUDA=cuda>=12.4 brand=tesla,driver>=470,driver<471 \
                             brand=unknown,driver>=470,driver<471 brand=tesla,driver>=535,driver<536";

    fn check(env: &[&str], driver: &str) -> Result<(), String> {
        let spec = json!({"process": {"env": env}});
        let found = Requirements::of_spec(&spec, &Policy::default());
        found
            .check(&Properties::of_driver(Some(driver)))
            .map_err(|err| err.to_string())
    }

    #[test]
    fn an_image_of_nvidias_starts_on_the_drivers_that_it_names() {
        for driver in ["550.54.15", "580.65.06", "535.104.05", "470.57.02", "999.1"] {
            assert_eq!(check(&[CUDA_12_4], driver), Ok(()), "{driver}");
        }
        let err = check(&[CUDA_12_4], "525.60.13").unwrap_err();
        assert!(
            err.starts_with("the image demands \"cuda>=12.4 brand=tesla,driver>=470"),
            "{err}"
        );
        assert!(
            err.contains(
                "by NVIDIA_REQUIRE_CUDA, but the host has driver 525.60.13 (CUDA 12.0); hint: "
            ),
            "{err}"
        );
        assert!(!err.contains('\n') && err.len() < 400, "{err}");
    }

    #[test]
    fn every_variable_must_hold() {
        let both = [
            "NVIDIA_REQUIRE_CUDA=cuda>=12.0",
            "NVIDIA_REQUIRE_DRIVER=driver>=560",
        ];
        assert_eq!(check(&both, "560.28.03"), Ok(()));
        let err = check(&both, "550.54.15").unwrap_err();
        assert!(
            err.contains("demands driver>=560 by NVIDIA_REQUIRE_DRIVER"),
            "{err}"
        );
        let twice = [
            "NVIDIA_REQUIRE_CUDA=cuda>=99.0",
            "NVIDIA_REQUIRE_CUDA=cuda>=12.0",
        ];
        assert_eq!(
            check(&twice, "550.54.15"),
            Ok(()),
            "the last duplicate counts"
        );
    }

    #[test]
    fn demands_can_be_turned_off() {
        for off in ["1", "true", "TRUE", "t"] {
            let off = format!("NVIDIA_DISABLE_REQUIRE={off}");
            assert_eq!(
                check(&["NVIDIA_REQUIRE_CUDA=cuda>=99", &off], "550.1"),
                Ok(())
            );
        }
        for on in ["0", "false", "", "yes"] {
            let on = format!("NVIDIA_DISABLE_REQUIRE={on}");
            assert!(check(&["NVIDIA_REQUIRE_CUDA=cuda>=99", &on], "550.1").is_err());
        }
        let spec = json!({"process": {"env": ["NVIDIA_REQUIRE_CUDA=nonsense"]}});
        let policy = Policy {
            disable_require: true,
            ..Policy::default()
        };
        assert!(Requirements::of_spec(&spec, &policy).is_empty());
    }

    #[test]
    fn what_is_no_demand_is_passed_over() {
        let env = [
            "NVIDIA_REQUIRE_JETPACK=csv-mounts=all",
            "NVIDIA_REQUIRE_CUDA=",
            "NVIDIA_REQUIRE_X= ",
            "NVIDIA_REQUIRE_Y",
        ];
        let spec = json!({"process": {"env": env}});
        assert!(Requirements::of_spec(&spec, &Policy::default()).is_empty());
        assert!(Requirements::of_spec(&json!({}), &Policy::default()).is_empty());
    }

    #[test]
    fn an_old_image_states_its_version() {
        assert_eq!(check(&["CUDA_VERSION=8.0.61"], "384.81"), Ok(()));
        assert_eq!(check(&["CUDA_VERSION=12.9.1"], "550.54.15"), Ok(()));
        assert!(check(&["CUDA_VERSION=10.2"], "418.39").is_err());
        let err = check(&["CUDA_VERSION=13.0.1"], "550.54.15").unwrap_err();
        assert!(
            err.contains(
                "demands cuda>=13.0 by CUDA_VERSION, but the host has driver 550.54.15 (CUDA 12.4)"
            ),
            "{err}"
        );
        assert_eq!(
            check(
                &["CUDA_VERSION=13.0.1", "NVIDIA_REQUIRE_CUDA=cuda>=12.0"],
                "550.54.15"
            ),
            Ok(())
        );
        let spec = json!({"process": {"env": ["CUDA_VERSION=cu121"]}});
        let found = Requirements::of_spec(&spec, &Policy::default());
        assert!(found.is_empty());
        assert_eq!(
            found.warnings,
            ["CUDA_VERSION=cu121 is not a version, the driver is not checked against it"]
        );
    }

    #[test]
    fn a_demand_that_cannot_be_read_names_its_variable() {
        let err = check(&["NVIDIA_REQUIRE_CUDA=cuda12"], "550.54.15").unwrap_err();
        assert_eq!(
            err,
            "NVIDIA_REQUIRE_CUDA: cuda12 has no operator of = != < <= > >=; hint: set NVIDIA_DISABLE_REQUIRE=1 \
             to start the container without the check"
        );
        let hostile = check(&["NVIDIA_REQUIRE_\u{1b}[31m\n=cuda>x\u{7}"], "550.1").unwrap_err();
        assert!(!hostile.contains(['\n', '\u{1b}', '\u{7}']), "{hostile}");
    }

    #[test]
    fn nothing_known_of_the_host_is_nothing_to_complain_about() {
        let spec = json!({"process": {"env": [CUDA_12_4]}});
        let found = Requirements::of_spec(&spec, &Policy::default());
        assert_eq!(found.check(&Properties::default()), Ok(()));
    }
}
