//! What is known of the host's driver without asking it.

use std::collections::BTreeMap;
use std::fmt;

use super::language::{Known, Version};
use crate::request::shown;

/// The newest CUDA version of each branch of drivers, as NVIDIA's CUDA Toolkit Release Notes state it ("CUDA Toolkit
/// and Corresponding Driver Versions"). A branch between two has the CUDA version of the older one.
const CUDA_OF_BRANCH: [(u32, Version); 30] = [
    (352, Version::new(7, 5)),
    (367, Version::new(8, 0)),
    (384, Version::new(9, 0)),
    (387, Version::new(9, 1)),
    (396, Version::new(9, 2)),
    (410, Version::new(10, 0)),
    (418, Version::new(10, 1)),
    (440, Version::new(10, 2)),
    (450, Version::new(11, 0)),
    (455, Version::new(11, 1)),
    (460, Version::new(11, 2)),
    (465, Version::new(11, 3)),
    (470, Version::new(11, 4)),
    (495, Version::new(11, 5)),
    (510, Version::new(11, 6)),
    (515, Version::new(11, 7)),
    (520, Version::new(11, 8)),
    (525, Version::new(12, 0)),
    (530, Version::new(12, 1)),
    (535, Version::new(12, 2)),
    (545, Version::new(12, 3)),
    (550, Version::new(12, 4)),
    (555, Version::new(12, 5)),
    (560, Version::new(12, 6)),
    (565, Version::new(12, 7)),
    (570, Version::new(12, 8)),
    (575, Version::new(12, 9)),
    (580, Version::new(13, 0)),
    (590, Version::new(13, 1)),
    // Nothing is known from here on but that it is not older.
    (595, Version::new(13, 1)),
];

/// What a demand can be compared with; `None` is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    pub(super) driver: Option<Known>,
    pub(super) cuda: Option<Known>,
    /// Compute capability. Only NVIDIA's management library knows it, and a spec that was made by it.
    pub(super) arch: Option<Known>,
    /// `tesla`, `geforce`, …. Only NVIDIA's management library knows it.
    pub(super) brand: Option<String>,
}

/// Annotation of a CDI device by `cdi generate`: compute capability of its GPU.
pub const GPU_ARCH: &str = "fleet-nvidia/arch";
/// Annotation of a CDI device by `cdi generate`: brand of its GPU.
pub const GPU_BRAND: &str = "fleet-nvidia/brand";

impl Properties {
    /// With what a CDI device's annotations say of its GPU.
    #[must_use]
    pub fn with_annotations(mut self, annotations: &BTreeMap<String, String>) -> Self {
        let arch = annotations.get(GPU_ARCH).map(String::as_str);
        self.arch = arch.and_then(Version::parse).map(|version| Known {
            version,
            at_least: false,
        });
        self.brand = annotations.get(GPU_BRAND).cloned();
        self
    }

    /// What follows from a driver's version, such as `580.65.06`.
    #[must_use]
    pub fn of_driver(version: Option<&str>) -> Self {
        let driver = version.and_then(Version::parse);
        Self {
            driver: driver.map(|version| Known {
                version,
                at_least: false,
            }),
            cuda: driver.and_then(cuda_of),
            ..Self::default()
        }
    }
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(driver) = self.driver else {
            return f.write_str("no NVIDIA driver that is known");
        };
        write!(f, "driver {}", DriverVersion(driver.version))?;
        match self.cuda {
            Some(cuda) if cuda.at_least => write!(f, " (CUDA {} or later)", cuda.version)?,
            Some(cuda) => write!(f, " (CUDA {})", cuda.version)?,
            None => {}
        }
        if let Some(arch) = self.arch {
            write!(f, ", a GPU of compute capability {}", arch.version)?;
        }
        match &self.brand {
            Some(brand) => write!(f, ", brand {}", shown(brand)),
            None => Ok(()),
        }
    }
}

/// As NVIDIA writes them: `580.65.06`, `535.104.05`, `390.157`.
struct DriverVersion(Version);

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.rsplit_once('.') {
            Some((start, patch)) if start.contains('.') => write!(f, "{start}.{patch:0>2}"),
            _ => write!(
                f,
                "{}.{:0>2}",
                self.0.major(),
                text.split('.').nth(1).unwrap_or("0")
            ),
        }
    }
}

fn cuda_of(driver: Version) -> Option<Known> {
    let at = CUDA_OF_BRANCH.partition_point(|(branch, _)| *branch <= driver.major());
    let (_, version) = CUDA_OF_BRANCH.get(at.checked_sub(1)?)?;
    Some(Known {
        version: *version,
        at_least: at == CUDA_OF_BRANCH.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_spec_tells_of_its_gpu() {
        let told = [(GPU_ARCH, "8.9"), (GPU_BRAND, "geforcertx"), ("x", "y")];
        let told = told.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let host = Properties::of_driver(Some("550.54.15")).with_annotations(&told.into());
        assert_eq!(
            host.to_string(),
            "driver 550.54.15 (CUDA 12.4), a GPU of compute capability 8.9, brand geforcertx"
        );
        let none = Properties::of_driver(Some("550.54.15")).with_annotations(&BTreeMap::new());
        assert_eq!(none, Properties::of_driver(Some("550.54.15")));
    }

    #[test]
    fn the_table_ascends() {
        assert!(CUDA_OF_BRANCH.is_sorted());
    }

    #[test]
    fn a_driver_tells_its_cuda_version() {
        let cases = [
            ("550.54.15", "driver 550.54.15 (CUDA 12.4)"),
            ("535.104.05", "driver 535.104.05 (CUDA 12.2)"),
            ("580.65.06", "driver 580.65.06 (CUDA 13.0)"),
            ("470.57.02", "driver 470.57.02 (CUDA 11.4)"),
            ("430.40", "driver 430.40 (CUDA 10.1)"),
            ("390.157", "driver 390.157 (CUDA 9.1)"),
            ("610.10.01", "driver 610.10.01 (CUDA 13.1 or later)"),
            ("340.108", "driver 340.108"),
            ("nonsense", "no NVIDIA driver that is known"),
        ];
        for (driver, want) in cases {
            assert_eq!(Properties::of_driver(Some(driver)).to_string(), want);
        }
        assert_eq!(Properties::of_driver(None), Properties::default());
    }
}
