//! Directories of files, as engines meet them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

#[test]
fn a_kind_can_give_way_to_another_spec() {
    let spec = |kind: &str, device: &str| {
        LoadedSpec {
        path: PathBuf::from(format!("/{device}")),
        priority: 0,
        spec: crate::parse(
            format!("cdiVersion: 0.5.0\nkind: {kind}\ndevices:\n- name: {device}\n  containerEdits: {{env: [A=1]}}\n").as_bytes(),
            crate::Format::Yaml,
        )
        .unwrap(),
    }
    };
    let empty = Registry::scan(&[]);
    let both = empty
        .replacing(spec("a.com/x", "old"))
        .replacing(spec("a.com/y", "other"))
        .replacing(spec("a.com/x", "new"));
    let names: Vec<_> = both.devices().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a.com/x=new", "a.com/y=other"]);
    let found = both.resolve(&["a.com/x=new".parse().unwrap()]).unwrap();
    assert_eq!(found[0].spec_path, PathBuf::from("/new"));
}

struct Dirs(PathBuf);

impl Dirs {
    fn new(name: &str) -> Self {
        let base =
            std::env::temp_dir().join(format!("fleet-registry-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&base));
        fs::create_dir_all(base.join("etc")).unwrap();
        fs::create_dir_all(base.join("run")).unwrap();
        Self(base)
    }

    fn put(&self, file: &str, kind: &str, devices: &[&str], value: &str) {
        let devices: Vec<String> = devices
            .iter()
            .map(|d| format!("- name: \"{d}\"\n  containerEdits:\n    env: [\"V={value}\"]"))
            .collect();
        let text = format!(
            "cdiVersion: 0.6.0\nkind: {kind}\ncontainerEdits:\n  env: [\"G={value}\"]\ndevices:\n{}\n",
            devices.join("\n")
        );
        fs::write(self.0.join(file), text).unwrap();
    }

    fn scan(&self) -> Registry {
        Registry::scan(&[self.0.join("etc"), self.0.join("run"), self.0.join("none")])
    }
}

impl Drop for Dirs {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn names(all: &[&str]) -> Vec<QualifiedName> {
    all.iter().map(|name| name.parse().unwrap()).collect()
}

fn envs(registry: &Registry, asked: &[&str]) -> Vec<String> {
    registry
        .resolve(&names(asked))
        .unwrap()
        .into_iter()
        .flat_map(|s| s.edits.env)
        .collect()
}

#[test]
fn request_order_and_globals_once() {
    let dirs = Dirs::new("order");
    dirs.put("etc/a.yaml", "v/c", &["0", "1"], "a");
    dirs.put("etc/b.yaml", "w/c", &["0"], "b");
    assert_eq!(
        envs(&dirs.scan(), &["v/c=1", "w/c=0", "v/c=0", "v/c=1"]),
        ["G=a", "V=a", "G=b", "V=b", "V=a"]
    );
}

#[test]
fn a_later_directory_wins() {
    let dirs = Dirs::new("priority");
    dirs.put("etc/a.yaml", "v/c", &["0", "1"], "etc");
    dirs.put("run/a.yaml", "v/c", &["0"], "run");
    assert_eq!(envs(&dirs.scan(), &["v/c=0"]), ["G=run", "V=run"]);
    assert_eq!(envs(&dirs.scan(), &["v/c=1"]), ["G=etc", "V=etc"]);
    assert!(dirs.scan().errors().is_empty());
}

#[test]
fn a_conflict_removes_the_device_and_names_both_files() {
    let dirs = Dirs::new("conflict");
    dirs.put("etc/a.yaml", "v/c", &["0", "1"], "a");
    dirs.put("etc/b.yaml", "v/c", &["0"], "b");
    dirs.put("run/c.yaml", "v/c", &["0"], "c");
    let registry = dirs.scan();
    assert_eq!(
        registry.devices(),
        names(&["v/c=1"]),
        "as the Go library: the higher directory's is gone, too"
    );
    let err = registry
        .resolve(&names(&["v/c=0"]))
        .unwrap_err()
        .to_string();
    assert!(
        err.starts_with("unresolvable CDI devices v/c=0")
            && err.contains("a.yaml")
            && err.contains("b.yaml"),
        "{err}"
    );
}

#[test]
fn a_bad_file_affects_no_other() {
    let dirs = Dirs::new("bad");
    dirs.put("etc/a.yaml", "v/c", &["0"], "a");
    fs::write(dirs.0.join("etc/b.yaml"), "kind: [").unwrap();
    fs::write(dirs.0.join("etc/c.json"), "{}").unwrap();
    fs::write(dirs.0.join("etc/ignored.yml"), "x").unwrap();
    fs::create_dir(dirs.0.join("etc/d.yaml")).unwrap();
    symlink(dirs.0.join("run"), dirs.0.join("etc/e.yaml")).unwrap();
    symlink(dirs.0.join("etc/a.yaml"), dirs.0.join("run/link.yaml")).unwrap();
    symlink("nowhere", dirs.0.join("run/dangling.json")).unwrap();
    let registry = dirs.scan();
    assert_eq!(registry.devices().len(), 1);
    let errors: Vec<_> = registry.errors().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 4, "{errors:?}");
    for (err, part) in errors.iter().zip([
        "b.yaml is invalid: line 1, column 8: ",
        "c.json is invalid: cdiVersion is missing",
        "e.yaml is not a regular file",
        "dangling.json is missing",
    ]) {
        assert!(err.contains(part) && !err.contains('\n'), "{err}");
    }
    let err = registry
        .resolve(&names(&["v/c=9"]))
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("known devices of v/c are 0") && err.contains("b.yaml"),
        "{err}"
    );
    assert!(!err.contains('\n'));
}

#[test]
fn unknown_kinds_name_the_directories() {
    let err = Dirs::new("kind")
        .scan()
        .resolve(&names(&["x/y=z"]))
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("no CDI spec of kind x/y") && err.contains("/etc") && err.contains("hint"),
        "{err}"
    );
    for word in ["not found", "no such file", "permission denied"] {
        assert!(!err.to_lowercase().contains(word), "{err}");
    }
}

#[test]
fn sizes_and_kinds_of_files_are_checked() {
    let dirs = Dirs::new("kinds");
    fs::write(dirs.0.join("etc/big.json"), vec![b' '; 9 * 1024 * 1024]).unwrap();
    nix_fifo(&dirs.0.join("etc/pipe.json"));
    let registry = dirs.scan();
    let text: Vec<String> = registry.errors().iter().map(ToString::to_string).collect();
    assert!(text.iter().any(|t| t.contains("larger than")), "{text:?}");
    assert!(
        text.iter().any(|t| t.contains("not a regular file")),
        "{text:?}"
    );
}

fn nix_fifo(path: &Path) {
    assert!(
        std::process::Command::new("mkfifo")
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn entries_and_specs() {
    let dirs = Dirs::new("entries");
    dirs.put("run/a.yaml", "v/c", &["1", "0"], "a");
    dirs.put("etc/z.yaml", "w/c", &["0"], "z");
    let registry = dirs.scan();
    let entries: Vec<_> = registry
        .entries()
        .map(|(name, loaded)| (name.to_string(), loaded.priority))
        .collect();
    let want = [("v/c=0", 1), ("v/c=1", 1), ("w/c=0", 0)];
    assert_eq!(entries, want.map(|(name, at)| (name.to_owned(), at)));
    let kinds: Vec<_> = registry.specs().iter().map(|s| &*s.spec.kind).collect();
    assert_eq!(kinds, ["w/c", "v/c"]);
    assert_eq!(registry.dirs().len(), 3);
    let owner = registry.spec_of(&names(&["w/c=0"])[0]).unwrap();
    assert_eq!(owner.path, dirs.0.join("etc/z.yaml"));
}

#[test]
fn three_files_of_one_directory() {
    let dirs = Dirs::new("three");
    for file in ["etc/a.yaml", "etc/b.yaml", "etc/c.yaml"] {
        dirs.put(file, "v/c", &["0"], file);
    }
    let registry = dirs.scan();
    let pairs: Vec<_> = registry
        .errors()
        .iter()
        .map(|err| match err {
            RegistryError::Conflict { first, second, .. } => (first.clone(), second.clone()),
            _ => panic!("{err}"),
        })
        .collect();
    let file = |name: &str| dirs.0.join("etc").join(name);
    let want = ["b.yaml", "c.yaml"].map(|second| (file("a.yaml"), file(second)));
    assert_eq!(pairs, want);
    assert!(registry.devices().is_empty());
}

#[test]
fn one_kind_in_several_files() {
    let dirs = Dirs::new("merged");
    dirs.put("etc/a.yaml", "v/c", &["0"], "a");
    dirs.put("etc/b.yaml", "v/c", &["1"], "b");
    assert_eq!(
        envs(&dirs.scan(), &["v/c=0", "v/c=1"]),
        ["G=a", "V=a", "G=b", "V=b"]
    );
}

#[test]
fn names_of_files() {
    let dirs = Dirs::new("names");
    dirs.put("etc/.json", "v/c", &["hidden"], "a");
    dirs.put("etc/UPPER.YAML", "v/c", &["upper"], "a");
    dirs.put("etc/a.yaml.bak", "v/c", &["bak"], "a");
    fs::create_dir(dirs.0.join("etc/sub")).unwrap();
    dirs.put("etc/sub/a.yaml", "v/c", &["sub"], "a");
    assert_eq!(dirs.scan().devices(), names(&["v/c=hidden"]));
}

#[test]
fn a_directory_that_cannot_be_listed_is_reported() {
    let dirs = Dirs::new("unlisted");
    dirs.put("run/a.yaml", "v/c", &["0"], "a");
    fs::remove_dir(dirs.0.join("etc")).unwrap();
    fs::write(dirs.0.join("etc"), "").unwrap();
    let registry = dirs.scan();
    assert_eq!(registry.devices().len(), 1, "the next one is read still");
    let err = registry.errors()[0].to_string();
    assert!(
        err.starts_with("CDI directory ") && err.contains("errno 20"),
        "{err}"
    );
}

#[test]
fn a_file_that_nobody_may_read_is_reported() {
    let dirs = Dirs::new("circle");
    symlink("a.json", dirs.0.join("etc/a.json")).unwrap();
    let err = dirs.scan().errors()[0].to_string();
    assert!(err.contains("ELOOP"), "{err}");
    let denied = std::io::Error::from_raw_os_error(libc::EACCES);
    assert_eq!(crate::file::unreadable(&denied), "cannot be read (EACCES)");
}

#[test]
fn the_file_that_would_have_the_device_is_named() {
    let dirs = Dirs::new("suspect");
    fs::write(dirs.0.join("etc/a.yaml"), "kind: [").unwrap();
    fs::write(dirs.0.join("etc/b.yaml"), "kind: v/c\ndevices: [").unwrap();
    let err = dirs
        .scan()
        .resolve(&names(&["v/c=1"]))
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("no CDI spec of kind v/c") && err.contains("b.yaml is invalid"),
        "{err}"
    );
    dirs.put("run/c.yaml", "v/c", &["0", "1"], "c");
    let text = fs::read_to_string(dirs.0.join("run/c.yaml")).unwrap();
    fs::write(dirs.0.join("run/c.yaml"), text.replace("0.6.0", "0.4.0")).unwrap();
    let err = dirs
        .scan()
        .resolve(&names(&["v/c=1"]))
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("CDI device v/c=1 is defined only in ")
            && err
                .contains("run/c.yaml, which is invalid: the spec version must be at least v0.5.0"),
        "{err}"
    );
}

#[test]
fn every_name_has_its_cause_once() {
    let dirs = Dirs::new("causes");
    dirs.put("etc/a.yaml", "v/c", &["0", "1"], "a");
    dirs.put("etc/b.yaml", "v/c", &["1"], "b");
    let asked = names(&["v/c=8", "w/c=0", "v/c=9", "v/c=1", "v/c=0", "v/c=8"]);
    let err = dirs.scan().resolve(&asked).unwrap_err();
    assert_eq!(err.names, names(&["v/c=8", "w/c=0", "v/c=9", "v/c=1"]));
    let text = err.to_string();
    assert!(
        text.starts_with("unresolvable CDI devices v/c=8, w/c=0, v/c=9, v/c=1: "),
        "{text}"
    );
    for part in [
        "known devices of v/c are 0; searched ",
        "no CDI spec of kind w/c in ",
        "v/c=1 is defined by both ",
    ] {
        assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
    }
}

#[test]
fn messages_are_bounded() {
    let dirs = Dirs::new("long");
    let many: Vec<String> = (0..2000)
        .map(|n| format!("device-{n}-{}", "x".repeat(200)))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    dirs.put("etc/a.yaml", "v/c", &many, "a");
    let asked: Vec<String> = (0..3000)
        .map(|n| format!("v/c=missing-{n}-{}", "y".repeat(300)))
        .collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let err = dirs.scan().resolve(&names(&asked)).unwrap_err().to_string();
    assert!(
        err.len() < 4200 && err.contains("and 2984 more"),
        "{} bytes",
        err.len()
    );
}

#[test]
fn a_scan_for_devices_resolves_as_a_full_one() {
    let dirs = Dirs::new("wanted");
    dirs.put("etc/a.yaml", "v/c", &["0", "1"], "a");
    dirs.put("etc/b.yaml", "v/c", &["1"], "b");
    dirs.put("etc/c.yaml", "v/c", &["10"], "c");
    dirs.put("etc/w.yaml", "w/c", &["0"], "w");
    dirs.put("run/a.yaml", "v/c", &["0", "10"], "run");
    // The kind is escaped: a search for it would miss the file.
    let escaped = r#"{"cdiVersion":"0.5.0","kind":"v\/c","devices":[{"name":"e","containerEdits":{"env":["V=e"]}}]}"#;
    fs::write(dirs.0.join("etc/e.json"), escaped).unwrap();
    fs::write(dirs.0.join("etc/broken.json"), "{").unwrap();
    let full = dirs.scan();
    let wanted = names(&["v/c=0"]);
    let partial = Registry::scan_for(full.dirs(), &Wanted::of(&wanted));
    let files: Vec<_> = partial
        .specs()
        .iter()
        .map(|s| s.path.file_name().unwrap())
        .collect();
    assert_eq!(
        files,
        ["a.yaml", "e.json", "a.yaml"],
        "the others are left out"
    );
    assert_eq!(partial.whole().devices(), full.devices());
    assert_eq!(partial.whole().errors(), full.errors());
    assert!(std::ptr::eq(partial.whole(), partial.whole()), "read once");
    for asked in [
        &["v/c=0"][..],
        &["v/c=e", "v/c=0"],
        &["v/c=1"],
        &["v/c=10"],
        &["v/c=7"],
        &["w/c=0"],
        &["w/c=0", "v/c=0"],
        &["x/c=0"],
        &[],
    ] {
        let asked = names(asked);
        let want = full.resolve(&asked);
        assert_eq!(
            partial.resolve(&asked),
            want,
            "not what it was read for: {asked:?}"
        );
        let partial = Registry::scan_for(full.dirs(), &Wanted::of(&asked));
        assert_eq!(partial.resolve(&asked), want, "{asked:?}");
        for name in &asked {
            let path = |registry: &Registry| registry.spec_of(name).map(|s| s.path.clone());
            assert_eq!(path(&partial), path(&full), "{name}");
        }
    }
    let of_kind = Registry::scan_for(full.dirs(), &Wanted::default().and_kind("v/c"));
    let devices = |registry: &Registry| {
        let mut all = registry.devices();
        all.retain(|name| name.kind() == "v/c");
        all
    };
    assert_eq!(devices(&of_kind), devices(&full));
}

/// Directories of files that overlap in names, are broken, shadow each other and conflict.
#[test]
fn any_scan_for_devices_resolves_as_a_full_one() {
    let dirs = Dirs::new("any-wanted");
    let mut dice = crate::dice::Dice::new(11);
    let (mut found, mut lost, mut left_out) = (0, 0, 0);
    let all = [
        "0", "1", "10", "16", "0x10", "\"0x10\"", "gpu0", "gpu1", "0:1", "true", "yes", "1e3",
    ];
    let asked_names = [
        "0", "1", "10", "16", "0x10", "gpu0", "gpu1", "0:1", "true", "yes", "1000", "absent",
    ];
    for _ in 0..60 {
        for dir in ["etc", "run"] {
            drop(fs::remove_dir_all(dirs.0.join(dir)));
            fs::create_dir_all(dirs.0.join(dir)).unwrap();
            for file in 0..dice.below(6) {
                let kind = ["v/c", "w/c"][dice.below(2)];
                let devices: Vec<String> = (0..=dice.below(3))
                    .map(|_| {
                        let name = all[dice.below(all.len())];
                        format!("- name: {name}\n  containerEdits: {{env: [V={dir}{file}]}}\n")
                    })
                    .collect();
                let version = ["0.6.0", "0.6.0", "0.6.0", "9.0.0"][dice.below(4)];
                let text = format!(
                    "cdiVersion: {version}\nkind: {kind}\ndevices:\n{}",
                    devices.concat()
                );
                fs::write(dirs.0.join(format!("{dir}/{file}.yaml")), text).unwrap();
            }
        }
        let full = dirs.scan();
        for _ in 0..20 {
            let asked: Vec<QualifiedName> = (0..=dice.below(2))
                .map(|_| {
                    let kind = ["v/c", "w/c"][dice.below(2)];
                    let name = asked_names[dice.below(asked_names.len())];
                    format!("{kind}={name}").parse().unwrap()
                })
                .collect();
            let partial = Registry::scan_for(full.dirs(), &Wanted::of(&asked));
            let want = full.resolve(&asked);
            assert_eq!(partial.resolve(&asked), want, "{asked:?}");
            left_out += full.specs().len() - partial.specs().len();
            match want {
                Ok(_) => found += 1,
                Err(_) => lost += 1,
            }
        }
    }
    assert!(
        found > 100 && lost > 100 && left_out > 1000,
        "{found} {lost} {left_out}"
    );
}
