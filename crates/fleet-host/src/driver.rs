//! NVIDIA's kernel driver, as it states itself.

use fleet_cdi::{ContainerEdits, SourcedEdits};

/// Where a loaded driver states its version.
pub const DRIVER_VERSION_FILE: &str = "/proc/driver/nvidia/version";

/// The version in the text of [`DRIVER_VERSION_FILE`], such as `580.65.06`.
#[must_use]
pub fn driver_version(text: &str) -> Option<&str> {
    let line = text
        .lines()
        .find(|line| line.starts_with("NVRM version:"))?;
    line.split_ascii_whitespace().find(|word| is_version(word))
}

/// The driver's version in the name of its CUDA library, where the kernel's part is out of sight: in a virtual machine's
/// container, or before the module is loaded. Windows' and Tegra's libraries have numbers of their own.
pub(crate) fn library_version(resolved: &[SourcedEdits]) -> Option<String> {
    let mut found = resolved.iter().map(|sourced| &sourced.edits);
    found.find_map(|edits| Some(mounted_version(edits)?.1))
}

/// The CUDA library among the mounts, and its version.
pub(crate) fn mounted_version(edits: &ContainerEdits) -> Option<(String, String)> {
    const FIRST: u32 = 300;
    edits.mounts.iter().find_map(|mount| {
        let name = mount.host_path.rsplit('/').next()?;
        let version = name.strip_prefix("libcuda.so.")?;
        let major: u32 = version.split('.').next()?.parse().ok()?;
        (is_version(version) && major >= FIRST)
            .then(|| (mount.host_path.clone(), version.to_owned()))
    })
}

fn is_version(word: &str) -> bool {
    let mut parts = word.split('.');
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    word.contains('.') && parts.all(is_number)
}

#[cfg(test)]
mod tests {
    use fleet_cdi::Mount;

    use super::*;

    #[test]
    fn both_flavours_of_the_driver_are_read() {
        let cases = [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  12.2\n",
                Some("550.54.15"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (root@x)  Sun Jul 27\n",
                Some("580.65.06"),
            ),
            (
                "NVRM version: NVIDIA UNIX aarch64 Kernel Module  535.104  x\n",
                Some("535.104"),
            ),
            ("GCC version:  gcc version 12.2.0\n", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(driver_version(text), want);
        }
    }

    #[test]
    fn the_library_states_the_version_too() {
        let of = |path: &str| {
            let mut sourced = SourcedEdits {
                spec_path: "/etc/cdi/x.yaml".into(),
                device: None,
                edits: ContainerEdits::default(),
            };
            sourced.edits.mounts.push(Mount {
                host_path: path.to_owned(),
                ..Mount::default()
            });
            library_version(&[sourced])
        };
        assert_eq!(
            of("/usr/lib64/libcuda.so.580.65.06").as_deref(),
            Some("580.65.06")
        );
        for other in [
            "/usr/lib/wsl/libcuda.so.1.1",
            "/usr/lib64/libcuda.so.1",
            "/usr/lib64/libnvidia-ml.so.580.65.06",
            "libcuda.so.580.x",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
