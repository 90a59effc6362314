//! The order of entries: the loader finds a name by binary search.

use std::cmp::Ordering;

use super::{Cache, Entry};

/// The order of names in a cache: runs of digits compare as numbers (glibc's `_dl_cache_libcmp`).
///
/// A number wraps at 32 bits, as the loader's own does: a binary search must compare as the sort did.
#[must_use]
pub fn compare_names(left: &[u8], right: &[u8]) -> Ordering {
    let (mut l, mut r) = (0, 0);
    while l < left.len() {
        let (a, b) = (left[l], right.get(r).copied().unwrap_or(0));
        match (a.is_ascii_digit(), b.is_ascii_digit()) {
            (true, true) => match number(left, &mut l).cmp(&number(right, &mut r)) {
                Ordering::Equal => {}
                other => return other,
            },
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) if a != b => return character(a).cmp(&character(b)),
            (false, false) => {
                l += 1;
                r += 1;
            }
        }
    }
    if r < right.len() {
        Ordering::Less
    } else {
        Ordering::Equal
    }
}

fn number(text: &[u8], at: &mut usize) -> i32 {
    let mut value = 0_i32;
    while let Some(digit) = text.get(*at).filter(|byte| byte.is_ascii_digit()) {
        value = value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
        *at += 1;
    }
    value
}

/// C's `char` is signed on x86 and unsigned on Arm.
fn character(byte: u8) -> i16 {
    if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        i16::from(byte.cast_signed())
    } else {
        i16::from(byte)
    }
}

/// How `a` and `b` stand in a cache with these `glibc-hwcaps` names (`compare` of glibc's `elf/cache.c`): names
/// descending; among equal names the higher flags, then named hardware capabilities ascending, then bits descending.
pub(crate) fn compare(a: &Entry, b: &Entry, hwcaps: &[Vec<u8>]) -> Ordering {
    let name = |entry: &Entry| entry.hwcaps_index().map(|at| hwcaps.get(at));
    compare_names(&b.key, &a.key)
        .then_with(|| b.flags.cmp(&a.flags))
        .then_with(|| match (name(a), name(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => b.os_version.cmp(&a.os_version).then(b.hwcap.cmp(&a.hwcap)),
        })
}

/// Puts entries into the order that the loader needs. Entries that are equal in all that it looks at keep their
/// order, which is that of their directories.
pub fn sort(cache: &mut Cache) {
    let hwcaps = &cache.hwcaps;
    cache.entries.sort_by(|a, b| compare(a, b, hwcaps));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ldcache::HWCAP_EXTENSION;
    use crate::ldcache::tests::entry;

    #[test]
    fn names() {
        for (less, more) in [
            ("liba.so", "libb.so"),
            ("libx.so.2", "libx.so.10"),
            ("libx.so", "libx.so.1"),
            ("lib.so", "lib1.so"),
            ("libx.so.1.9", "libx.so.1.10"),
            // 4294967298 wraps to 2.
            ("libx.so.4294967298", "libx.so.3"),
        ] {
            assert_eq!(
                compare_names(less.as_bytes(), more.as_bytes()),
                Ordering::Less,
                "{less} {more}"
            );
            assert_eq!(
                compare_names(more.as_bytes(), less.as_bytes()),
                Ordering::Greater,
                "{less} {more}"
            );
        }
        assert_eq!(compare_names(b"a1", b"a1"), Ordering::Equal);
        assert_eq!(compare_names(b"a01", b"a1"), Ordering::Equal);
    }

    #[test]
    fn equal_names() {
        let make = |flags, hwcap, path: &str| Entry {
            flags,
            hwcap,
            ..entry("libx.so.1", path)
        };
        let want = vec![
            make(0x303, HWCAP_EXTENSION, "/a/v2"),
            make(0x303, HWCAP_EXTENSION | 1, "/a/v3"),
            make(0x303, 1 << 50, "/a/haswell"),
            make(0x303, 0, "/first"),
            make(0x303, 0, "/a"),
            make(3, 0, "/lib32"),
        ];
        let mut cache = Cache {
            entries: [4, 5, 2, 1, 0, 3]
                .map(|at: usize| want[at].clone())
                .to_vec(),
            hwcaps: vec![b"x86-64-v2".to_vec(), b"x86-64-v3".to_vec()],
            generator: None,
        };
        // `/a` came before `/first` here, and stays so.
        sort(&mut cache);
        let mut want = want;
        want.swap(3, 4);
        assert_eq!(cache.entries, want);
    }

    /// A sort panics or loses entries when the order is none; digits that overflow are the way to make it so.
    #[test]
    fn hostile_numbers_are_still_an_order() {
        let names: Vec<String> = (0_u64..400)
            .map(|n| format!("lib{}x{}.so", n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n % 7))
            .collect();
        let mut cache = Cache {
            entries: names.iter().map(|name| entry(name, "/x")).collect(),
            ..Cache::default()
        };
        sort(&mut cache);
        assert_eq!(cache.entries.len(), 400);
        assert!(
            cache
                .entries
                .is_sorted_by(|a, b| compare_names(&a.key, &b.key).is_ge())
        );
    }
}
