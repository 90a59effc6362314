//! `enable-cuda-compat`: the image's own newer `libcuda` (forward compatibility) is preferred when NVIDIA's rules allow
//! it on this driver. The image's library is only named to its own loader, never mounted from or executed.

use nix::sys::stat::SFlag;
use serde_json::Value;

use crate::ldcache::compare_names;
use crate::root::{Root, clean};
use crate::{Applied, ApplyError, elf};

const DEFAULT_ROOT: &str = "/usr/local/cuda/compat";
/// Sorts before our own drop-in, so that its directory comes first.
const DROP_IN: &str = "/etc/ld.so.conf.d/00-compat-fleet-nvidia.conf";
const NOTE: &str = ".note.cuda.fwd_compatibility";
const OWNER: &str = "NVIDIA Corporation";
const NOTE_LIMIT: u64 = 256 * 1024;

/// What the host has.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Host<'a> {
    pub(crate) driver: Option<&'a str>,
    pub(crate) cuda: Option<&'a str>,
}

/// Decides, and names the compat directory to the loader.
pub(crate) fn enable(
    root: &Root<'_>,
    host: &Host<'_>,
    directory: Option<&str>,
    done: &mut Applied,
) -> Result<(), ApplyError> {
    let directory = clean(directory.unwrap_or(DEFAULT_ROOT));
    let Some((file, version)) = library(root, &directory) else {
        return Ok(());
    };
    let note = root
        .open_file(&format!("{directory}/{file}"))
        .ok()
        .and_then(|file| elf::section(&file, NOTE, NOTE_LIMIT))
        .and_then(|bytes| describe(&bytes));
    if !wanted(host, &version, note.as_ref()) {
        done.notes.push(format!(
            "CUDA compatibility libraries {version} in `{directory}` are not used with this driver"
        ));
        return Ok(());
    }
    done.notes.push(format!(
        "CUDA compatibility libraries {version} in `{directory}` are used"
    ));
    root.replace(DROP_IN, format!("{directory}\n").as_bytes(), 0o644)
        .map_err(|err| ApplyError::new("write", DROP_IN, &err))
}

/// The one regular `libcuda.so.X.Y` of the directory, and its version.
fn library(root: &Root<'_>, directory: &str) -> Option<(String, String)> {
    let names = root.list(directory).ok()?;
    let mut found = names
        .into_iter()
        .filter(|(_, kind)| *kind == SFlag::S_IFREG)
        .filter_map(|(name, _)| {
            let version = name.strip_prefix("libcuda.so.")?.to_owned();
            version.contains('.').then_some((name, version))
        });
    let only = found.next()?;
    found.next().is_none().then_some(only)
}

/// What the note says of the library.
#[derive(Debug, PartialEq, Eq)]
struct Note {
    cuda: Option<String>,
    branches: Vec<String>,
}

/// An ELF note: sizes of owner and description, type, owner, description, each padded to four bytes.
fn describe(bytes: &[u8]) -> Option<Note> {
    let size = |at: usize| {
        usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
    };
    let (owner, description) = (size(0)?, size(4)?);
    let start = 12 + owner.checked_next_multiple_of(4)?;
    let name = bytes.get(12..12_usize.checked_add(owner)?)?;
    if name.strip_suffix(b"\0").unwrap_or(name) != OWNER.as_bytes() {
        return None;
    }
    let text = bytes.get(start..start.checked_add(description)?)?;
    let text = text.split(|byte| *byte == 0).next()?;
    let json: Value = serde_json::from_slice(text).ok()?;
    // Key names differ between releases of the tool that writes them; case is not significant.
    let field = |words: &[&str]| {
        json.as_object()?
            .iter()
            .find(|(key, _)| {
                words
                    .iter()
                    .any(|word| key.to_ascii_lowercase().replace(['_', '-', ' '], "") == *word)
            })
            .map(|(_, value)| value)
    };
    let plain = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .or_else(|| value.as_number().map(ToString::to_string))
    };
    let branches = field(&[
        "driver",
        "drivers",
        "driverbranch",
        "driverbranches",
        "driversupported",
    ])?;
    let branches = branches
        .as_array()
        .map(|all| all.iter().filter_map(plain).collect())
        .unwrap_or_default();
    Some(Note {
        cuda: field(&["cuda", "cudaversion"]).and_then(plain),
        branches,
    })
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// Facts of `nvidia-toolkit.md` 5: with a note, the host driver's branch must be listed and the library newer; without
/// one, the library's major version must be above the host driver's.
fn wanted(host: &Host<'_>, version: &str, note: Option<&Note>) -> bool {
    match (note, host.driver, host.cuda) {
        (Some(note), Some(driver), _) => {
            let branch = major(driver).map(|n| n.to_string());
            let listed = note
                .branches
                .iter()
                .any(|known| major(known).map(|n| n.to_string()) == branch);
            listed && compare_names(version, driver).is_gt()
        }
        (Some(note), None, Some(cuda)) => note
            .cuda
            .as_deref()
            .is_some_and(|theirs| compare_names(theirs, cuda).is_gt()),
        (None, Some(driver), None) => {
            matches!((major(version), major(driver)), (Some(theirs), Some(ours)) if theirs > ours)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tests::Tree;

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

    #[test]
    fn notes() {
        let note = describe(&note_bytes(
            OWNER,
            r#"{"CUDA Version": "12.8", "Driver": [535, "550"]}"#,
        ))
        .unwrap();
        assert_eq!(
            note,
            Note {
                cuda: Some("12.8".into()),
                branches: vec!["535".into(), "550".into()]
            }
        );
        assert_eq!(describe(&note_bytes("Somebody", "{}")), None);
        let good = note_bytes(OWNER, r#"{"driver": []}"#);
        for length in 0..good.len() {
            drop(describe(&good[..length]));
        }
    }

    #[test]
    fn decisions() {
        let note = |branches: &[&str]| Note {
            cuda: Some("12.10".into()),
            branches: branches.iter().map(|b| (*b).to_owned()).collect(),
        };
        let driver = |d| Host {
            driver: Some(d),
            cuda: None,
        };
        assert!(wanted(
            &driver("550.54.15"),
            "570.10.1",
            Some(&note(&["550"]))
        ));
        assert!(
            !wanted(&driver("550.54.15"), "570.10.1", Some(&note(&["535"]))),
            "branch not listed"
        );
        assert!(
            !wanted(&driver("580.1.1"), "570.10.1", Some(&note(&["580"]))),
            "older than the host"
        );
        assert!(wanted(&driver("550.54.15"), "570.10.1", None));
        assert!(!wanted(&driver("570.1.1"), "570.10.1", None));
        assert!(
            wanted(
                &Host {
                    driver: None,
                    cuda: Some("12.9")
                },
                "1.1",
                Some(&note(&[]))
            ),
            "12.10 is above 12.9"
        );
        assert!(!wanted(&Host::default(), "570.1.1", None));
    }

    #[test]
    fn the_drop_in() {
        let tree = Tree::new("compat");
        tree.write("usr/local/cuda/compat/libcuda.so.570.10.1", "no elf");
        let mut done = Applied::default();
        enable(
            &tree.root(),
            &Host {
                driver: Some("550.1.1"),
                cuda: None,
            },
            None,
            &mut done,
        )
        .unwrap();
        assert_eq!(tree.read(DROP_IN), "/usr/local/cuda/compat\n");
        tree.write("usr/local/cuda/compat/libcuda.so.560.1.1", "a second one");
        let mut done = Applied::default();
        enable(
            &tree.root(),
            &Host {
                driver: Some("550.1.1"),
                cuda: None,
            },
            None,
            &mut done,
        )
        .unwrap();
        assert!(done.notes.is_empty(), "two candidates: no decision");
    }
}
