//! NVIDIA's kernel driver, as it states itself.

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

fn is_version(word: &str) -> bool {
    let mut parts = word.split('.');
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    word.contains('.') && parts.all(is_number)
}

#[cfg(test)]
mod tests {
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
}
