//! Each engine on a temporary root: written, written again, taken back, refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use clap::Parser;

use super::*;

struct Root(tempfile::TempDir);

impl Root {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        fs::create_dir(root.path("/etc")).unwrap();
        root.write("/usr/bin/fleet-nvidia", "binary");
        let program = root.path("/usr/bin/fleet-nvidia");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        for (path, text) in files {
            root.write(path, text);
        }
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// All files and their texts, and all directories.
    fn all(&self) -> Vec<(PathBuf, Option<String>)> {
        fn walk(dir: &Path, all: &mut Vec<(PathBuf, Option<String>)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => {
                        walk(&path, all);
                        all.push((path, None));
                    }
                    false => all.push((path.clone(), Some(fs::read_to_string(path).unwrap()))),
                }
            }
        }
        let mut all = Vec::new();
        walk(self.0.path(), &mut all);
        all.sort();
        all
    }

    /// Verdict or error text, output, remarks.
    fn configure(&self, args: &[&str]) -> (Result<Verdict, String>, String, String) {
        let root = self.0.path().to_str().unwrap();
        let start = ["fleet-nvidia-ctl", "configure", "--root", root];
        let cli = Cli::try_parse_from(start.iter().chain(args)).unwrap();
        let (mut out, mut remarks) = (Vec::new(), Vec::new());
        let verdict = crate::run(&cli, &mut out, &mut remarks).map_err(|err| err.to_string());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (verdict, text(out), text(remarks))
    }

    #[track_caller]
    fn fine(&self, args: &[&str]) -> String {
        let (verdict, out, remarks) = self.configure(args);
        assert_eq!(verdict, Ok(Verdict::Fine), "{remarks}");
        assert_eq!(remarks, "");
        out
    }

    /// Writing it once is as good as twice, and what is taken back leaves the root as it was.
    #[track_caller]
    fn comes_and_goes(&self, args: &[&str]) {
        let before = self.all();
        let dry = self.fine(&[args, &["--dry-run"]].concat());
        assert!(dry.contains("\n+++ ") && dry.contains("\n+"), "{dry}");
        assert_eq!(self.all(), before, "--dry-run writes nothing");
        let out = self.fine(args);
        assert!(
            out.starts_with("wrote ") || out.starts_with("changed "),
            "{out}"
        );
        let written = self.all();
        assert_ne!(written, before);
        let again = self.fine(args);
        assert!(again.starts_with("nothing to do: "), "{again}");
        assert_eq!(self.all(), written);
        let name = args.iter().skip_while(|arg| **arg != "--name").take(2);
        let user = args.iter().filter(|arg| **arg == "--user");
        let remove: Vec<&str> = [args[0], "--remove"]
            .into_iter()
            .chain(name.copied())
            .chain(user.copied())
            .collect();
        self.fine(&remove);
        assert_eq!(self.all(), before);
        assert_eq!(
            self.fine(&remove),
            "nothing to do: there is no such entry\n"
        );
    }

    /// Refused with these words, and nothing is touched.
    #[track_caller]
    fn refused(&self, args: &[&str], words: &[&str]) {
        let before = self.all();
        let err = self.configure(args).0.unwrap_err();
        for word in words {
            assert!(err.contains(word), "`{word}` is not in: {err}");
        }
        assert_eq!(err.lines().count(), 1, "{err}");
        assert_eq!(self.all(), before);
    }
}

const PODMAN: &str = "/etc/containers/containers.conf.d/50-fleet-nvidia.conf";
const CRIO: &str = "/etc/crio/crio.conf.d/50-fleet-nvidia.conf";
const CONTAINERD: &str = "/etc/containerd/conf.d/50-fleet-nvidia.toml";
const DOCKER: &str = "/etc/docker/daemon.json";

#[test]
fn every_engine_comes_and_goes() {
    for engine in ["podman", "crio", "containerd", "docker"] {
        Root::new(&[]).comes_and_goes(&[engine]);
        Root::new(&[]).comes_and_goes(&[engine, "--name", "other", "--default"]);
        Root::new(&[]).comes_and_goes(&[engine, "--runtime-path", "/usr/bin/fleet-nvidia"]);
    }
}

#[test]
fn podman_keeps_the_lists_in_force() {
    let root = Root::new(&[
        (
            "/usr/share/containers/containers.conf",
            "[engine]\nruntime_supports_json = [\"crun\", \"own\"]\n",
        ),
        (
            "/etc/containers/containers.conf.d/10-more.conf",
            "[engine]\nruntime_supports_json = [\"more\", {append = true}]\n",
        ),
        (
            "/etc/containers/containers.conf.d/60-x.conf.dpkg-dist",
            "not TOML: Podman does not read it",
        ),
    ]);
    root.comes_and_goes(&["podman"]);
    root.fine(&["podman"]);
    let text = root.read(PODMAN);
    assert!(
        text.contains("runtime_supports_json = [\"crun\", \"own\", \"more\", \"fleet-nvidia\"]\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "runtime_supports_nocgroup = [\"crun\", \"crun-vm\", \"krun\", \"fleet-nvidia\"]\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("[engine.runtimes]\nfleet-nvidia = [\"/usr/bin/fleet-nvidia\"]\n"),
        "{text}"
    );
    assert!(
        !text.contains("\nruntime ="),
        "never the default unless asked: {text}"
    );
    assert!(!text.contains("append"), "Podman 4.3 fails on it: {text}");
}

#[test]
fn the_packaged_drop_in_of_podman_is_as_wanted() {
    let shipped = include_str!("../../../../packaging/containers.conf.d/50-fleet-nvidia.conf");
    let root = Root::new(&[(PODMAN, shipped)]);
    assert!(root.fine(&["podman"]).starts_with("nothing to do: "));
    root.fine(&["podman", "--name", "nvidia"]);
    let text = root.read(PODMAN);
    assert!(text.starts_with("# Tells Podman"), "comments stay: {text}");
    assert!(
        text.contains("nvidia = [\"/usr/bin/fleet-nvidia\"]"),
        "{text}"
    );
    let shipped = include_str!("../../../../packaging/crio.conf.d/50-fleet-nvidia.conf");
    let root = Root::new(&[(CRIO, shipped)]);
    assert!(root.fine(&["crio"]).starts_with("nothing to do: "));
}

#[test]
fn a_second_name_does_not_cost_the_first() {
    let root = Root::new(&[]);
    let before = root.all();
    root.fine(&["podman", "--name", "a"]);
    let one = root.read(PODMAN);
    root.fine(&["podman", "--name", "b"]);
    assert!(
        root.read(PODMAN)
            .contains("\"a\", \"fleet-nvidia\", \"b\"]")
    );
    root.fine(&["podman", "--remove", "--name", "b"]);
    assert_eq!(root.read(PODMAN), one);
    root.fine(&["podman", "--name", "b"]);
    root.fine(&["podman", "--remove", "--name", "a"]);
    root.fine(&["podman", "--remove", "--name", "b"]);
    assert_eq!(root.all(), before);
}

#[test]
fn a_later_file_of_podman_is_named() {
    let later = "/etc/containers/containers.conf.d/99-site.conf";
    let root = Root::new(&[(later, "[engine]\nruntime_supports_json = [\"crun\"]\n")]);
    let (verdict, _, remarks) = root.configure(&["podman"]);
    assert_eq!(verdict, Ok(Verdict::Fine));
    assert!(
        remarks.contains(
            "99-site.conf:2 is read later and sets `runtime_supports_json` without `fleet-nvidia`"
        ),
        "{remarks}"
    );
    root.write(
        later,
        "[engine.runtimes]\nfleet-nvidia = [\"/opt/other\"]\n",
    );
    let (verdict, _, remarks) = root.configure(&["podman"]);
    assert_eq!(verdict, Ok(Verdict::Faulty));
    assert!(
        remarks.contains("99-site.conf:2 is read later and gives `fleet-nvidia` another program"),
        "{remarks}"
    );
}

#[test]
fn half_written_and_foreign_files_are_left_alone() {
    let cases: [(&str, &str, &str, &str); 9] = [
        ("podman", PODMAN, "[engine.runtimes\n", ":1: is not TOML"),
        (
            "podman",
            "/etc/containers/containers.conf",
            "\n[engine]\nruntime_supports_json = 3\n",
            "containers.conf:3: `engine.runtime_supports_json` is not a list",
        ),
        (
            "podman",
            PODMAN,
            "[engine.runtimes]\nfleet-nvidia = [\"/usr/bin/crun\"]\n",
            ":2: runtime `fleet-nvidia`, which is /usr/bin/crun, is somebody else's",
        ),
        (
            "crio",
            "/etc/crio/crio.conf",
            "[crio\n",
            "/etc/crio/crio.conf:1: is not TOML",
        ),
        (
            "crio",
            CRIO,
            "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/nvidia-container-runtime\"\n",
            ":2: handler `nvidia`",
        ),
        (
            "containerd",
            "/etc/containerd/config.toml",
            "version = 4\n",
            ":1: `version` is 4, not 1, 2 or 3",
        ),
        (
            "containerd",
            CONTAINERD,
            "version = 2\n",
            ":1: the file, which was not generated here,",
        ),
        (
            "docker",
            DOCKER,
            "{\n  \"debug\": true,\n",
            ":3: is not JSON",
        ),
        (
            "docker",
            DOCKER,
            "{\n  \"runtimes\": {\n    \"nvidia\": {\"path\": \"nvidia-container-runtime\"}\n  }\n}\n",
            ":3: runtime `nvidia`, which is nvidia-container-runtime, is somebody else's",
        ),
    ];
    for (engine, path, text, words) in cases {
        let root = Root::new(&[(path, text)]);
        root.refused(&[engine], &[words, "nothing was written"]);
        let before = root.all();
        let removed = root.configure(&[engine, "--remove"]).0;
        assert!(removed.is_err() || path.ends_with("containers.conf"));
        assert_eq!(root.all(), before);
    }
}

#[test]
fn what_others_make_the_default_is_not_taken_away() {
    let cases = [
        (
            "podman",
            "/etc/containers/containers.conf",
            "[engine]\nruntime = \"fleet-nvidia\"\n",
            "every podman command fails",
        ),
        (
            "crio",
            "/etc/crio/crio.conf",
            "[crio.runtime]\ndefault_runtime = \"nvidia\"\n",
            "CRI-O does not start",
        ),
        (
            "containerd",
            "/etc/containerd/config.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"nvidia\"\n",
            "containerd starts no pod",
        ),
    ];
    for (engine, path, text, loss) in cases {
        let root = Root::new(&[(path, text)]);
        root.configure(&[engine]).0.unwrap();
        root.refused(&[engine, "--remove"], &[path, loss]);
    }
}

#[test]
fn crio_takes_the_monitor_of_its_default_handler() {
    let packaged = "[crio.runtime]\ndefault_runtime = \"crun\"\n[crio.runtime.runtimes.crun]\nruntime_path = \"/usr/libexec/crio/crun\"\nmonitor_path = \"/usr/libexec/crio/conmon\"\nallowed_annotations = [\"x\"]\n";
    let root = Root::new(&[
        ("/etc/crio/crio.conf.d/10-crio.conf", packaged),
        ("/usr/libexec/crio/conmon", ""),
    ]);
    let (verdict, _, remarks) = root.configure(&["crio"]);
    assert_eq!(verdict, Ok(Verdict::Fine));
    assert!(
        remarks.contains("10-crio.conf:5 names a monitor that is missing"),
        "{remarks}"
    );
    assert!(
        !root.read(CRIO).contains("monitor_path"),
        "a wrong path stops CRI-O"
    );
    fs::set_permissions(
        root.path("/usr/libexec/crio/conmon"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    root.fine(&["crio"]);
    let text = root.read(CRIO);
    assert!(
        text.contains("monitor_path = \"/usr/libexec/crio/conmon\"\n"),
        "{text}"
    );
    assert!(
        text.contains("[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/fleet-nvidia\"\n"),
        "{text}"
    );
    assert!(!text.contains("default_runtime"), "{text}");
}

/// CRI-O would look for pods without a class in the state of the new default runtime.
#[test]
fn another_default_of_crio_wants_an_empty_node() {
    let root = Root::new(&[]);
    let drain = "next: drain the node, daemon sets included, then systemctl restart crio";
    let lines = [
        (&["crio"][..], false),
        (&["crio", "--default"], true),
        (&["crio", "--remove"], true),
        (&["crio"], false),
        (&["crio", "--remove"], false),
    ];
    for (args, wanted) in lines {
        let out = root.fine(args);
        assert_eq!(out.contains(drain), wanted, "{args:?}: {out}");
    }
}

#[test]
fn crio_files_of_the_same_handler_are_named() {
    let toolkit =
        "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/nvidia-container-runtime\"\n";
    let root = Root::new(&[
        ("/etc/crio/crio.conf.d/99-nvidia.toml", toolkit),
        ("/usr/bin/nvidia-container-runtime", ""),
    ]);
    let program = root.path("/usr/bin/nvidia-container-runtime");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    let (verdict, _, remarks) = root.configure(&["crio"]);
    assert_eq!(verdict, Ok(Verdict::Faulty));
    for words in [
        "99-nvidia.toml:1 defines handler `nvidia` as well (/usr/bin/nvidia-container-runtime) and is read later",
        "two toolkits are installed: /usr/bin/nvidia-container-runtime (NVIDIA's) and /usr/bin/fleet-nvidia",
    ] {
        assert!(remarks.contains(words), "{remarks}");
    }
    let (verdict, ..) = root.configure(&["crio", "--name", "fleet-nvidia"]);
    assert_eq!(verdict, Ok(Verdict::Fine));
    root.write("/etc/crio/crio.conf.d/50-fleet-nvidia.conf.dpkg-dist", "");
    let (_, _, remarks) = root.configure(&["crio", "--name", "fleet-nvidia"]);
    assert!(
        remarks.contains("50-fleet-nvidia.conf.dpkg-dist looks like a backup, but CRI-O reads it"),
        "{remarks}"
    );
}

const CRI2: &str = "# site\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"own/pause:1\" # ours\n  [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n    runtime_type = \"io.containerd.runc.v2\"\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n      SystemdCgroup = true\n";

#[test]
fn containerd_repeats_the_section_that_an_import_would_hide() {
    let main = "/etc/containerd/config.toml";
    let root = Root::new(&[(main, CRI2)]);
    root.comes_and_goes(&["containerd"]);
    root.fine(&["containerd"]);
    let text = root.read(CONTAINERD);
    let parsed = crate::toml_file::TomlFile::parse(Path::new(CONTAINERD), text.clone()).unwrap();
    let cri = ["plugins", "io.containerd.grpc.v1.cri"];
    let at = |keys: &[&'static str]| [cri.as_slice(), keys].concat();
    assert_eq!(parsed.text(&at(&["sandbox_image"])), Some("own/pause:1"));
    let ours = ["containerd", "runtimes", "nvidia", "options"];
    assert_eq!(
        parsed.text(&at(&[ours.as_slice(), &["BinaryName"]].concat())),
        Some("/usr/bin/fleet-nvidia")
    );
    let systemd = parsed.item(&at(&[ours.as_slice(), &["SystemdCgroup"]].concat()));
    assert_eq!(systemd.and_then(toml_edit::Item::as_bool), Some(true));
    let edited = root.read(main);
    assert!(
        edited.starts_with("# site\nversion = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]"),
        "{edited}"
    );
    assert!(edited.contains("\"own/pause:1\" # ours"), "{edited}");
    // The main file changes: the copy follows.
    root.write(main, &edited.replace("own/pause:1", "own/pause:2"));
    root.fine(&["containerd"]);
    assert!(root.read(CONTAINERD).contains("own/pause:2"));
}

#[test]
fn containerd_keeps_its_default_handler() {
    let section = "[plugins.\"io.containerd.grpc.v1.cri\".containerd";
    let crun = format!("{section}.runtimes.crun]\nruntime_type = \"io.containerd.runc.v2\"\n");
    for (main, kept) in [
        (String::new(), true),
        (crun.clone(), true),
        (
            format!("{section}]\ndefault_runtime_name = \"crun\"\n{crun}"),
            false,
        ),
    ] {
        let main = format!("version = 2\n{main}");
        let root = Root::new(&[("/etc/containerd/config.toml", &main)]);
        root.comes_and_goes(&["containerd"]);
        root.fine(&["containerd"]);
        let text = root.read(CONTAINERD);
        assert_eq!(
            text.contains(&format!("{section}.runtimes.runc]")),
            kept,
            "{text}"
        );
    }
}

#[test]
fn containerd_versions_have_their_own_section_names() {
    let cases = [
        (
            "disabled_plugins = []\n",
            "[plugins.cri.containerd.runtimes.nvidia]",
            false,
        ),
        (
            "version = 2\n",
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia]",
            true,
        ),
        (
            "version = 3\nimports = [\"/opt/x.toml\"] # mine\n",
            "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.nvidia]",
            true,
        ),
    ];
    for (main, section, states_version) in cases {
        let root = Root::new(&[("/etc/containerd/config.toml", main)]);
        root.fine(&["containerd"]);
        let text = root.read(CONTAINERD);
        assert!(text.contains(section), "{text}");
        // The built-in default handler, which a table of handlers hides.
        assert!(text.contains(&section.replace("nvidia", "runc")), "{text}");
        assert_eq!(text.contains("version = "), states_version, "{text}");
    }
    let root = Root::new(&[(
        "/etc/containerd/config.toml",
        "version = 2\nimports = [\"conf.d/*.toml\"]\ndisabled_plugins = [\"cri\"]\n",
    )]);
    let (verdict, out, remarks) = root.configure(&["containerd"]);
    assert_eq!(verdict, Ok(Verdict::Fine));
    assert!(
        !out.contains("config.toml"),
        "an import that covers it is enough: {out}"
    );
    assert!(
        remarks.contains("config.toml:3 switches `cri` off"),
        "{remarks}"
    );
}

#[test]
fn containerd_files_that_hide_ours_are_named() {
    let theirs = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia.options]\nBinaryName = \"/usr/bin/nvidia-container-runtime\"\n";
    let root = Root::new(&[
        (
            "/etc/containerd/config.toml",
            "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
        ),
        ("/etc/containerd/conf.d/99-nvidia.toml", theirs),
    ]);
    let (verdict, _, remarks) = root.configure(&["containerd"]);
    assert_eq!(verdict, Ok(Verdict::Faulty));
    assert!(
        remarks.contains("99-nvidia.toml:2 holds the CRI section as well and is read later"),
        "{remarks}"
    );
}

#[test]
fn docker_keeps_order_form_and_foreign_runtimes() {
    let text = "{\n    \"log-level\": \"warn\",\n    \"runtimes\": {\n        \"kata\": {\n            \"runtimeType\": \"io.containerd.kata.v2\"\n        }\n    },\n    \"debug\": false\n}\n";
    let root = Root::new(&[(DOCKER, text)]);
    root.comes_and_goes(&["docker", "--default"]);
    root.fine(&["docker"]);
    let want = text.replace(
        "        }\n    },\n",
        "        },\n        \"nvidia\": {\n            \"path\": \"/usr/bin/fleet-nvidia\"\n        }\n    },\n",
    );
    assert_eq!(root.read(DOCKER), want);
    let root = Root::new(&[(
        DOCKER,
        "{\"runtimes\": {\"nvidia\": {\"path\": \"/opt/old/fleet-nvidia\", \"runtimeArgs\": [\"--debug\"]}}, \"features\": {\"cdi\": false}}",
    )]);
    let (verdict, _, remarks) = root.configure(&["docker"]);
    assert_eq!(verdict, Ok(Verdict::Fine));
    assert!(
        remarks.contains("daemon.json:1 switches CDI off"),
        "{remarks}"
    );
    let text = root.read(DOCKER);
    assert!(
        text.contains("--debug")
            && text.contains("\"/usr/bin/fleet-nvidia\"")
            && !text.contains("/opt/old"),
        "{text}"
    );
}

#[test]
fn names_are_checked_by_engine() {
    let root = Root::new(&[]);
    let cases = [
        ("podman", "a/b", "is not made of"),
        ("podman", "", "is not made of"),
        ("crio", "Nvidia", "is no RuntimeClass handler"),
        ("containerd", "my_gpu", "is no RuntimeClass handler"),
        ("docker", "runc", "is reserved by Docker"),
    ];
    for (engine, name, words) in cases {
        root.refused(&[engine, "--name", name], &[words]);
    }
    root.refused(&["crio", "--user"], &["CRI-O runs as root only"]);
    root.refused(
        &["podman", "--runtime-path", "fleet-nvidia"],
        &["is not absolute"],
    );
}

#[test]
fn a_missing_binary_is_said_and_the_entry_is_written_for_an_image() {
    let root = Root::new(&[]);
    fs::remove_file(root.path("/usr/bin/fleet-nvidia")).unwrap();
    let (verdict, _, remarks) = root.configure(&["podman"]);
    assert_eq!(verdict, Ok(Verdict::Fine));
    assert!(
        remarks.contains("/usr/bin/fleet-nvidia is not an executable file"),
        "{remarks}"
    );
    assert!(root.read(PODMAN).contains("/usr/bin/fleet-nvidia"));
}

#[test]
fn what_cannot_be_written_leaves_all_as_it_was() {
    // A directory stands where the main file should be: the drop-in, written first, goes again.
    let root = Root::new(&[]);
    let site = Site {
        files: Files::new(Some(root.0.path())),
        name: "nvidia".to_owned(),
        program: "/usr/bin/fleet-nvidia".to_owned(),
        default: false,
        remove: false,
        user: None,
    };
    let plan = Engine::Containerd.plan(&site).unwrap();
    fs::create_dir_all(root.path("/etc/containerd/config.toml")).unwrap();
    let err = plan.carry_out(&site.files).unwrap_err().to_string();
    assert!(
        err.starts_with("write /etc/containerd/config.toml: "),
        "{err}"
    );
    assert!(!root.path(CONTAINERD).exists());
}

/// Found by a rootless user whose binary had another name: what was written could not be taken back.
#[test]
fn a_binary_of_another_name_is_taken_back() {
    for engine in ["podman", "crio", "containerd", "docker"] {
        let root = Root::new(&[]);
        let before = root.all();
        let path = ["--runtime-path", "/opt/gpu-runtime"];
        root.configure(&[&[engine][..], &path].concat()).0.unwrap();
        let mut remove = vec![engine, "--remove"];
        if engine == "docker" {
            root.refused(&remove, &["runtime `nvidia`, which is /opt/gpu-runtime,"]);
            remove.extend(path);
        }
        root.fine(&remove);
        assert_eq!(root.all(), before, "{engine}");
    }
}

#[test]
fn without_a_name_all_of_ours_go_and_no_other() {
    let docker =
        "{\n  \"runtimes\": {\n    \"kata\": {\n      \"path\": \"/usr/bin/kata\"\n    }\n  }\n}\n";
    for (engine, files) in [
        ("podman", &[][..]),
        ("crio", &[]),
        ("containerd", &[]),
        ("docker", &[(DOCKER, docker)]),
    ] {
        let root = Root::new(files);
        let before = root.all();
        for name in ["one", "two"] {
            root.fine(&[engine, "--name", name]);
        }
        let both = root.all();
        root.fine(&[engine, "--remove", "--name", "one"]);
        assert_ne!(root.all(), before, "the other one stays: {engine}");
        let again = root.fine(&[engine, "--name", "two"]);
        assert!(again.starts_with("nothing to do"), "{engine}: {again}");
        root.fine(&[engine, "--name", "one"]);
        assert_eq!(root.all().len(), both.len());
        root.fine(&[engine, "--remove"]);
        assert_eq!(root.all(), before, "{engine}");
    }
}

#[test]
fn a_users_engine_reads_the_systems_files_first() {
    let system = "[engine]\nruntime_supports_json = [\"crun\", \"site\"]\n";
    let root = Root::new(&[("/etc/containers/containers.conf", system)]);
    let site = |engine| Site {
        user: Some(PathBuf::from("/home/ann/.config")),
        ..Site::of(&Files::new(Some(root.0.path())), engine)
    };
    for (engine, file) in [
        (
            Engine::Podman,
            "containers/containers.conf.d/50-fleet-nvidia.conf",
        ),
        (Engine::Containerd, "containerd/conf.d/50-fleet-nvidia.toml"),
        (Engine::Docker, "docker/daemon.json"),
    ] {
        let site = site(engine);
        engine.plan(&site).unwrap().carry_out(&site.files).unwrap();
        let text = root.read(&format!("/home/ann/.config/{file}"));
        assert!(text.contains("/usr/bin/fleet-nvidia"), "{text}");
        if engine == Engine::Podman {
            assert!(
                text.contains("[\"crun\", \"site\", \"fleet-nvidia\"]"),
                "{text}"
            );
        }
    }
    let main = root.read("/home/ann/.config/containerd/config.toml");
    assert!(
        main.contains("imports = [\"/home/ann/.config/containerd/conf.d/*.toml\"]"),
        "{main}"
    );
}

/// A file whose writer was interrupted: refused by name and line, or read as what it is; never lost, never a panic.
#[test]
fn files_cut_off_anywhere_are_refused_or_kept() {
    let podman = "[engine]\nruntime_supports_json = [\"crun\", {append = true}]\n[engine.runtimes]\nfleet-nvidia = [\"/usr/bin/fleet-nvidia\"]\n";
    let crio = "[crio.runtime]\ndefault_runtime = \"crun\"\n[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/fleet-nvidia\"\n";
    let docker = "{\n  \"debug\": true,\n  \"runtimes\": {\"nvidia\": {\"path\": \"/usr/bin/fleet-nvidia\"}}\n}\n";
    let cases = [
        ("podman", PODMAN, podman),
        ("crio", CRIO, crio),
        ("containerd", "/etc/containerd/config.toml", CRI2),
        ("docker", DOCKER, docker),
    ];
    for (engine, path, text) in cases {
        for cut in (0..text.len()).step_by(7) {
            let root = Root::new(&[(path, &text[..cut])]);
            let before = root.all();
            match root.configure(&[engine]).0 {
                Err(err) => {
                    assert!(err.starts_with(&format!("{path}:")), "{cut}: {err}");
                    assert_eq!(root.all(), before, "{cut}");
                }
                Ok(_) => {
                    let again = root.configure(&[engine]).1;
                    assert!(again.starts_with("nothing to do"), "{cut}: {again}");
                }
            }
        }
    }
}
