//! `enable-cuda-compat`: the image's own newer `libcuda` (forward compatibility) is preferred when NVIDIA's rules allow
//! it on this driver. The image's library is only named to its own loader, never mounted from or executed.

use std::fs::File;

use serde_json::{Map, Value};

use crate::root::{FileType, Root, clean};
use crate::{Applied, elf};

const DEFAULT_ROOT: &str = "/usr/local/cuda/compat";
const NOTE: &str = ".note.cuda.fwd_compatibility";
const OWNER: &str = "NVIDIA Corporation";
const NOTE_LIMIT: u64 = 256 * 1024;

/// What the host has.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Host<'a> {
    pub(crate) driver: Option<&'a str>,
    pub(crate) cuda: Option<&'a str>,
}

/// Decides, and returns the directory that is to come first for the loader, if any.
pub(crate) fn decide(
    root: &Root<'_>,
    host: &Host<'_>,
    directory: Option<&str>,
    done: &mut Applied,
) -> Option<String> {
    let directory = clean(directory.unwrap_or(DEFAULT_ROOT));
    let (file, version) = library(root, &directory)?;
    let section = elf::section(&file, NOTE, NOTE_LIMIT);
    let note = section.as_ref().and_then(describe);
    if section.is_some() && note.is_none() {
        done.notes.push(format!(
            "CUDA compatibility libraries {version} in `{directory}`: their note cannot be read, their version decides"
        ));
    }
    let used = wanted(host, &version, note.as_ref());
    let verb = if used {
        "are used"
    } else {
        "are not used with this driver"
    };
    done.notes.push(format!(
        "CUDA compatibility libraries {version} in `{directory}` {verb}"
    ));
    used.then_some(directory)
}

/// The one regular `libcuda.so.X.Y` of the directory, and its version.
fn library(root: &Root<'_>, directory: &str) -> Option<(File, String)> {
    let directory = root.directory(directory).ok()?;
    let names = directory.entries().ok()?;
    let mut found = names.iter().filter_map(|(name, kind)| {
        let version = name.strip_prefix("libcuda.so.")?;
        (*kind == FileType::RegularFile && version.contains('.')).then_some((name, version))
    });
    let (name, version) = found.next()?;
    if found.next().is_some() {
        return None;
    }
    Some((directory.open(name).ok()?, version.to_owned()))
}

/// What the note says of the library.
#[derive(Debug, PartialEq, Eq)]
struct Note {
    cuda: Option<String>,
    branches: Vec<String>,
}

/// An ELF note: sizes of owner and description, type, owner, description, the owner padded to the section's alignment.
fn describe(section: &elf::Section) -> Option<Note> {
    let bytes = section.bytes.as_slice();
    let size = |at: usize| {
        let word = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(word)).ok()
    };
    let (owner, description) = (size(0)?, size(4)?);
    let name = bytes.get(12..12_usize.checked_add(owner)?)?;
    if name.strip_suffix(b"\0").unwrap_or(name) != OWNER.as_bytes() {
        return None;
    }
    let start = owner
        .checked_next_multiple_of(section.alignment.max(1))?
        .checked_add(12)?;
    // Sizes of some releases count padding that is not there.
    let end = start.checked_add(description)?.min(bytes.len());
    let text = bytes.get(start..end)?.split(|byte| *byte == 0).next()?;
    serde_json::from_slice(text).ok().map(|json| read(&json))
}

/// The keys that matter are `Driver`, a list of branches, and `CUDA Version`; case is not significant.
fn read(json: &Map<String, Value>) -> Note {
    let field = |name: &str| {
        let mut fields = json.iter();
        fields
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    };
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let listed = field("driver").and_then(Value::as_array);
    Note {
        cuda: field("cuda version").and_then(plain),
        branches: listed.into_iter().flatten().filter_map(plain).collect(),
    }
}

/// Up to three numbers, missing ones zero; nothing for what is no version.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let mut found = [0; 3];
    let parts = version.strip_prefix('v').unwrap_or(version).split('.');
    for (at, part) in parts.enumerate() {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        *found.get_mut(at)? = part.parse().ok().filter(|_| digits)?;
    }
    Some(found)
}

/// NVIDIA's rules (`cuda-elf-header.go` of its toolkit 1.20). With a note, the host driver's branch must be listed in
/// it and the library newer; where one of the two driver versions is not known, the note's CUDA version must be above
/// the host's. Without a note, the library's major version must be above the host driver's, which says nothing where
/// the host tells a CUDA version.
fn wanted(host: &Host<'_>, version: &str, note: Option<&Note>) -> bool {
    let drivers = numbers(version).zip(host.driver.and_then(numbers));
    let cuda = host.cuda.and_then(numbers);
    match (note, drivers) {
        (Some(note), Some((theirs, ours))) => {
            let mut listed = note.branches.iter().filter_map(|branch| numbers(branch));
            theirs > ours && listed.any(|branch| branch[0] == ours[0])
        }
        (Some(note), None) => {
            let theirs = note.cuda.as_deref().and_then(numbers);
            matches!((theirs, cuda), (Some(theirs), Some(ours)) if theirs > ours)
        }
        (None, Some((theirs, ours))) => host.cuda.is_none() && theirs[0] > ours[0],
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tests::Tree;

    fn section(bytes: &[u8], alignment: usize) -> elf::Section {
        elf::Section {
            bytes: bytes.to_vec(),
            alignment,
        }
    }

    fn described(bytes: &[u8]) -> Option<Note> {
        describe(&section(bytes, 4))
    }

    fn note_bytes(owner: &str, json: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for n in [owner.len() + 1, json.len(), 1] {
            out.extend(u32::try_from(n).unwrap().to_le_bytes());
        }
        out.extend(owner.as_bytes());
        out.resize(12 + (owner.len() + 1).next_multiple_of(4), 0);
        out.extend(json.as_bytes());
        out
    }

    /// An ELF file with nothing but the note's section.
    fn with_note(json: &str) -> Vec<u8> {
        let note = note_bytes(OWNER, json);
        let names = format!("\0{NOTE}\0");
        let mut out = vec![0; 64];
        out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let mut section = |name: u32, at: usize, length: usize| {
            let mut header = vec![0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4] = if name == 0 { 3 } else { 7 };
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            header[48] = 4;
            out.extend(header);
        };
        section(1, 192, note.len());
        section(0, 192 + note.len(), names.len());
        out[40..48].copy_from_slice(&64_u64.to_le_bytes());
        for (at, value) in [(58, 64_u16), (60, 2), (62, 1)] {
            out[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        [out, note, names.into_bytes()].concat()
    }

    #[test]
    fn notes() {
        let json =
            r#"{"Format": 1, "CUDA Version": "12.8", "Driver": [535, "550"], "Device": [1]}"#;
        let want = Note {
            cuda: Some("12.8".into()),
            branches: vec!["535".into(), "550".into()],
        };
        let good = note_bytes(OWNER, json);
        assert_eq!(described(&good).unwrap(), want);
        // 19 bytes of owner are padded to 20 or 24.
        let mut wide = good[..31].to_vec();
        wide.resize(36, 0);
        wide.extend(json.as_bytes());
        assert_eq!(describe(&section(&wide, 8)).unwrap(), want);
        assert_eq!(describe(&section(&wide, 4)), None);
        assert_eq!(described(&note_bytes("Somebody", json)), None);
        assert_eq!(described(&note_bytes(OWNER, "[1]")), None);
        assert_eq!(described(&note_bytes(OWNER, "{")), None);
        for length in 0..good.len() {
            assert_eq!(described(&good[..length]), None, "cut at {length}");
        }
        for (at, want) in [(0, false), (4, true), (7, true)] {
            let mut bad = good.clone();
            bad[at] = 0xff;
            assert_eq!(
                described(&bad).is_some(),
                want,
                "a size at {at} that is too large"
            );
        }
    }

    #[test]
    fn decisions() {
        let note = |branches: &[&str]| {
            let branches = branches.iter().map(|branch| (*branch).to_owned()).collect();
            Some(Note {
                cuda: Some("12.10".into()),
                branches,
            })
        };
        for (driver, cuda, version, note, want, why) in [
            (
                "550.54.15",
                "",
                "570.10.1",
                note(&["550"]),
                true,
                "branch listed, newer",
            ),
            (
                "550.54.15",
                "",
                "570.10.1",
                note(&["535"]),
                false,
                "branch not listed",
            ),
            (
                "580.1.1",
                "",
                "570.10.1",
                note(&["580"]),
                false,
                "older than the host",
            ),
            (
                "580.1.1",
                "12.9",
                "1.1",
                note(&["580"]),
                false,
                "driver versions go before CUDA versions",
            ),
            (
                "580.1.1",
                "12.9",
                "590.1.1",
                note(&[]),
                false,
                "a note that lists no branch",
            ),
            (
                "580.x",
                "12.9",
                "590.1.1",
                note(&["580"]),
                true,
                "a driver version that cannot be read: CUDA versions",
            ),
            (
                "580.65.06",
                "",
                "580.65.10",
                note(&["580"]),
                true,
                "a later release of the same branch",
            ),
            (
                "580.100",
                "",
                "580.65.10",
                note(&["580"]),
                false,
                "100 is above 65",
            ),
            ("", "12.9", "1.1", note(&[]), true, "12.10 is above 12.9"),
            ("", "13.0", "1.1", note(&[]), false, "12.10 is below 13.0"),
            (
                "550.54.15",
                "",
                "570.10.1",
                None,
                true,
                "no note, higher major",
            ),
            (
                "570.1.1",
                "",
                "570.10.1",
                None,
                false,
                "no note, same major",
            ),
            ("1000.1", "", "570.10.1", None, false, "numbers, not texts"),
            (
                "550.1.1",
                "12.4",
                "570.10.1",
                None,
                false,
                "no note, but a CUDA version",
            ),
            ("550.1.1", "", "570.10.1.2", None, false, "four numbers"),
            ("550.1.1", "", "570.10-rc1", None, false, "no number"),
            ("", "", "570.1.1", None, false, "nothing known"),
            (
                "",
                "",
                "570.1.1",
                note(&["550"]),
                false,
                "a note, nothing else known",
            ),
        ] {
            let given = |text: &'static str| Some(text).filter(|text| !text.is_empty());
            let host = Host {
                driver: given(driver),
                cuda: given(cuda),
            };
            assert_eq!(wanted(&host, version, note.as_ref()), want, "{why}");
        }
    }

    #[test]
    fn the_librarys_own_note_counts() {
        for (branches, want) in [("550", true), ("535", false)] {
            let tree = Tree::new("compat");
            std::os::unix::fs::symlink("/usr/local/cuda-13", tree.root_link("usr/local/cuda"))
                .unwrap();
            let json = format!(r#"{{"Driver": [{branches}], "CUDA Version": "13.0"}}"#);
            tree.write(
                "usr/local/cuda-13/compat/libcuda.so.580.10.1",
                with_note(&json),
            );
            std::os::unix::fs::symlink(
                "libcuda.so.580.10.1",
                tree.path
                    .join("usr/local/cuda-13/compat/libcuda.so.580.link"),
            )
            .unwrap();
            let host = Host {
                driver: Some("550.1.1"),
                cuda: None,
            };
            for root in tree.roots() {
                let mut done = Applied::default();
                let decided = decide(&root, &host, None, &mut done);
                assert_eq!(decided.as_deref(), want.then_some(DEFAULT_ROOT));
                assert_eq!(done.notes.len(), 1);
            }
        }
    }

    /// Upstream judges such a library by its version, as one of the time before notes.
    #[test]
    fn a_note_that_cannot_be_read() {
        let good = with_note(r#"{"Driver": [535], "CUDA Version": "13.0"}"#);
        let at = |needle: &[u8]| {
            let mut windows = good.windows(needle.len());
            windows.position(|window| window == needle).unwrap()
        };
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        for (bytes, want, notes) in [
            (good.clone(), false, 1),
            (changed(at(b"{\"Driver"), b'x'), true, 2),
            (changed(at(OWNER.as_bytes()), b'x'), true, 2),
            // Its section has the name, but not the type; or the type, but not the name.
            (changed(64 + 4, 1), true, 1),
            (changed(at(NOTE.as_bytes()), b'x'), true, 1),
            (good[..200].to_vec(), true, 1),
        ] {
            let tree = Tree::new("compat-note");
            tree.write("usr/local/cuda/compat/libcuda.so.580.10.1", bytes);
            let host = Host {
                driver: Some("550.1.1"),
                cuda: None,
            };
            let mut done = Applied::default();
            let decided = decide(&tree.root(), &host, None, &mut done);
            assert_eq!(decided.is_some(), want, "{done:?}");
            assert_eq!(done.notes.len(), notes, "{done:?}");
        }
    }

    #[test]
    fn two_candidates_are_none() {
        let tree = Tree::new("compat-two");
        tree.write("compat/libcuda.so.570.10.1", "no elf");
        let host = Host {
            driver: Some("550.1.1"),
            cuda: None,
        };
        let decide = || {
            decide(
                &tree.root(),
                &host,
                Some("/../compat"),
                &mut Applied::default(),
            )
        };
        assert_eq!(decide().as_deref(), Some("/compat"));
        tree.write("compat/libcuda.so.560.1.1", "a second one");
        assert_eq!(decide(), None);
    }

    #[test]
    fn noise_in_a_note() {
        let good = note_bytes(OWNER, r#"{"Driver": [535, "550"], "CUDA Version": "12.8"}"#);
        let mut noise = crate::noise::Noise::new();
        for alignment in [0, 1, 4, 8, usize::MAX] {
            for _ in 0..2000 {
                let bytes = noise.damaged(&good);
                if let Some(note) = describe(&section(&bytes, alignment)) {
                    assert!(note.branches.len() <= bytes.len());
                    let host = Host {
                        driver: Some("550.1"),
                        cuda: Some("12.4"),
                    };
                    let _: bool = wanted(&host, "570.1", Some(&note));
                }
            }
        }
    }
}
