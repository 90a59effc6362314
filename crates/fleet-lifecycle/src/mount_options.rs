//! Mount options that are flags of a mount (`runtime-spec config.md#linux-mount-options`, `man 2 mount_setattr`), with
//! their recursive forms.

use crate::sys::mount::{Attributes, attr};

/// Name, bits to set, bits to clear.
const FLAGS: [(&str, u64, u64); 16] = [
    ("ro", attr::RDONLY, 0),
    ("rw", 0, attr::RDONLY),
    ("nosuid", attr::NOSUID, 0),
    ("suid", 0, attr::NOSUID),
    ("nodev", attr::NODEV, 0),
    ("dev", 0, attr::NODEV),
    ("noexec", attr::NOEXEC, 0),
    ("exec", 0, attr::NOEXEC),
    ("nosymfollow", attr::NOSYMFOLLOW, 0),
    ("symfollow", 0, attr::NOSYMFOLLOW),
    ("nodiratime", attr::NODIRATIME, 0),
    ("diratime", 0, attr::NODIRATIME),
    ("noatime", attr::NOATIME, attr::ATIME),
    ("atime", 0, attr::ATIME),
    ("relatime", 0, attr::ATIME),
    ("strictatime", attr::STRICTATIME, attr::ATIME),
];

/// Names for the absence of an access time mode, which is the kernel's default, `relatime`.
const DEFAULT_ATIME: [&str; 2] = ["norelatime", "nostrictatime"];

fn flag(option: &str) -> Option<(u64, u64)> {
    if DEFAULT_ATIME.contains(&option) {
        return Some((0, attr::ATIME));
    }
    FLAGS
        .iter()
        .find(|(name, ..)| *name == option)
        .map(|(_, set, clear)| (*set, *clear))
}

/// The changes to a mount that `options` ask for: of itself, and of all below it. A later option wins over an earlier
/// one; what is no flag is passed over.
pub(crate) fn changes(options: &[String]) -> Vec<Attributes<'static>> {
    let mut own = Attributes::default();
    let mut all = Attributes {
        recursive: true,
        ..Attributes::default()
    };
    for option in options {
        let recursive = || option.strip_prefix('r').and_then(flag);
        let (what, (set, clear)) = match (flag(option), recursive()) {
            (Some(bits), _) => (&mut own, bits),
            (None, Some(bits)) => (&mut all, bits),
            (None, None) => continue,
        };
        what.set = (what.set & !clear) | set;
        // The access time mode is one number: to set it is to clear its field first.
        what.clear = (what.clear & !set) | clear;
    }
    [all, own]
        .into_iter()
        .filter(|what| what.set | what.clear != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(options: &[&str]) -> Vec<(u64, u64, bool)> {
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        changes(&options)
            .into_iter()
            .map(|what| (what.set, what.clear, what.recursive))
            .collect()
    }

    #[test]
    fn flags() {
        assert_eq!(bits(&["rbind", "rprivate", "size=1"]), []);
        assert_eq!(
            bits(&["ro", "nosuid"]),
            [(attr::RDONLY | attr::NOSUID, 0, false)]
        );
        assert_eq!(bits(&["ro", "rw"]), [(0, attr::RDONLY, false)]);
        assert_eq!(bits(&["rw", "ro"]), [(attr::RDONLY, 0, false)]);
        assert_eq!(bits(&["noatime"]), [(attr::NOATIME, attr::ATIME, false)]);
        assert_eq!(
            bits(&["noatime", "strictatime"]),
            [(attr::STRICTATIME, attr::ATIME, false)]
        );
    }

    #[test]
    fn recursive_flags() {
        assert_eq!(
            bits(&["rro", "rnodev", "dev"]),
            [
                (attr::RDONLY | attr::NODEV, 0, true),
                (0, attr::NODEV, false)
            ]
        );
        assert_eq!(bits(&["ratime"]), [(0, attr::ATIME, true)]);
        assert_eq!(bits(&["rrelatime"]), [(0, attr::ATIME, true)]);
    }
}
