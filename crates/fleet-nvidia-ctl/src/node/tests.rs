//! The verbs on temporary roots. The killed runs, and a node with programs of its own, are in the suite `installer`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use clap::Parser;
use serde_json::{Value, json};

use crate::cli::Cli;
use crate::{CtlError, Verdict};

const CRIO: &str = "/etc/crio/crio.conf.d/50-fleet-nvidia.conf";
const PROGRAM: &str = "/opt/fleet-nvidia/current/fleet-nvidia";

struct Node {
    root: tempfile::TempDir,
    source: tempfile::TempDir,
}

impl Node {
    /// A node with these files, and programs of version 1 to install.
    fn new(files: &[(&str, &str)]) -> Self {
        let node = Self {
            root: tempfile::tempdir().unwrap(),
            source: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(node.root.path().join("etc")).unwrap();
        for (path, text) in files {
            node.write(path, text);
        }
        node.build("1");
        node
    }

    fn build(&self, version: &str) {
        for name in ["fleet-nvidia", "fleet-nvidia-ctl"] {
            let path = self.source.path().join(name);
            fs::write(&path, format!("#!/bin/sh\necho {name} version {version}\n")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Everything below the root: directories, links with their targets, files with their texts.
    fn tree(&self) -> BTreeMap<String, String> {
        fn walk(dir: &Path, all: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let what = match () {
                    () if path.is_symlink() => {
                        format!("-> {}", fs::read_link(&path).unwrap().display())
                    }
                    () if path.is_dir() => {
                        walk(&path, all);
                        "directory".to_owned()
                    }
                    () => fs::read_to_string(&path).unwrap(),
                };
                all.insert(path.display().to_string(), what);
            }
        }
        let mut all = BTreeMap::new();
        walk(self.root.path(), &mut all);
        all
    }

    fn run(&self, args: &[&str]) -> (Result<Verdict, CtlError>, String, String) {
        let root = self.root.path().to_str().unwrap();
        let source = self.source.path().to_str().unwrap();
        let mut argv = vec!["fleet-nvidia-ctl", "node", args[0], "--root", root];
        if args[0] == "install" {
            argv.extend(["--source", source]);
        }
        let cli = Cli::try_parse_from(argv.iter().chain(&args[1..])).unwrap();
        let (mut out, mut remarks) = (Vec::new(), Vec::new());
        let verdict = crate::run(&cli, &mut out, &mut remarks);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (verdict, text(out), text(remarks))
    }

    #[track_caller]
    fn fine(&self, args: &[&str]) -> String {
        let (verdict, out, _) = self.run(args);
        assert_eq!(verdict.unwrap(), Verdict::Fine, "{out}");
        out
    }

    /// Refused with these words, and nothing is touched.
    #[track_caller]
    fn refused(&self, args: &[&str], words: &[&str]) {
        let before = self.tree();
        let err = self.run(args).0.unwrap_err().to_string();
        for word in words {
            assert!(err.contains(word), "`{word}` is not in: {err}");
        }
        assert_eq!(err.lines().count(), 1, "{err}");
        assert_eq!(self.tree(), before);
    }

    /// What the path that engines store says of itself.
    fn version(&self) -> String {
        let said = std::process::Command::new(self.path(PROGRAM))
            .output()
            .unwrap();
        String::from_utf8(said.stdout)
            .unwrap()
            .trim()
            .replace("fleet-nvidia version ", "")
    }

    fn status(&self) -> (Verdict, Value) {
        let (verdict, out, _) = self.run(&["status", "--json"]);
        (verdict.unwrap(), serde_json::from_str(&out).unwrap())
    }
}

#[test]
fn it_comes_and_goes_and_leaves_the_node_as_it_was() {
    let main = "version = 2\n# ours\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n";
    let nodes: [&[(&str, &str)]; 5] = [
        &[("/etc/crio/crio.conf", "[crio]\n"), ("/opt/other/x", "")],
        &[("/usr/bin/crio", ""), ("/usr/bin/containerd", "")],
        &[
            ("/etc/containerd/config.toml", main),
            ("/etc/containerd/conf.d/10-x.toml", "version = 2\n"),
        ],
        &[
            ("/etc/crio/crio.conf.d/10-x.conf", ""),
            ("/etc/containerd/config.toml", main),
        ],
        &[("/usr/local/bin/containerd", ""), ("/etc/opt/x", "")],
    ];
    for files in nodes {
        let node = Node::new(files);
        let before = node.tree();
        let out = node.fine(&["install"]);
        assert!(
            out.starts_with("installed 1 in /opt/fleet-nvidia\n"),
            "{out}"
        );
        let (verdict, status) = node.status();
        assert_eq!(
            (verdict, &status["healthy"]),
            (Verdict::Fine, &Value::Bool(true)),
            "{status}"
        );
        let installed = node.tree();
        let again = node.fine(&["install"]);
        assert!(
            again.starts_with("1 is in force already\n") && !again.contains("wrote"),
            "{again}"
        );
        let twice = node.tree();
        let differing: Vec<_> = installed
            .iter()
            .filter(|(path, text)| twice.get(*path) != Some(text))
            .collect();
        assert_eq!(twice.len(), installed.len());
        assert!(
            differing
                .iter()
                .all(|(path, _)| path.ends_with("installed.json")),
            "{differing:?}"
        );
        node.fine(&["uninstall"]);
        assert_eq!(node.tree(), before);
        assert!(node.fine(&["uninstall"]).starts_with("nothing to do"));
        assert_eq!(node.tree(), before);
    }
}

#[test]
fn the_engine_is_told_the_path_that_stays() {
    let node = Node::new(&[("/usr/bin/crio", "")]);
    node.fine(&["install", "--runtime-name", "fast"]);
    let text = node.read(CRIO);
    assert!(
        text.contains(&format!(
            "[crio.runtime.runtimes.fast]\nruntime_path = \"{PROGRAM}\"\n"
        )),
        "{text}"
    );
    assert!(!text.contains("default_runtime"), "{text}");
    node.fine(&["install", "--runtime-name", "other", "--set-as-default"]);
    let text = node.read(CRIO);
    assert!(
        !text.contains("fast") && text.contains("default_runtime = \"other\""),
        "{text}"
    );
    node.fine(&["install", "--runtime", "none"]);
    assert!(!node.path("/etc/crio").exists());
    assert_eq!(node.status().0, Verdict::Fine);
}

#[test]
fn an_upgrade_keeps_one_version_to_go_back_to() {
    let node = Node::new(&[("/usr/bin/crio", "")]);
    node.refused(&["rollback"], &["there is no installation"]);
    node.fine(&["install"]);
    node.refused(&["rollback"], &["no earlier version"]);
    node.build("2");
    node.fine(&["install"]);
    assert_eq!(node.version(), "2");
    let out = node.fine(&["rollback"]);
    assert!(out.starts_with("went back from 2 to 1;"), "{out}");
    assert_eq!(node.version(), "1");
    node.fine(&["rollback"]);
    assert_eq!(node.version(), "2");
    node.build("3");
    node.fine(&["install"]);
    let mut versions: Vec<_> = fs::read_dir(node.path("/opt/fleet-nvidia/versions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    versions.sort();
    assert_eq!(versions, ["2", "3"]);
    // The same version, built anew.
    fs::write(
        node.source.path().join("fleet-nvidia-ctl"),
        "#!/bin/sh\n# another\n",
    )
    .unwrap();
    node.fine(&["install"]);
    let status = node.status().1;
    assert_eq!(
        (&status["version"], &status["previous"]),
        (&"3-2".into(), &"3".into())
    );
    node.fine(&["install"]);
    assert_eq!(node.status().1["version"], "3-2");
}

#[test]
fn what_is_somebody_elses_is_left_alone() {
    let node = Node::new(&[
        ("/usr/bin/crio", ""),
        ("/opt/fleet-nvidia/theirs", "x"),
        ("/var/lib/fleet-nvidia/x", ""),
    ]);
    node.refused(
        &["install"],
        &[
            "nowhere to install to: /opt/fleet-nvidia holds files that are not of an installation",
            "hint: ",
        ],
    );
    node.fine(&["install", "--install-dir", "/srv/gpu"]);
    assert!(
        node.fine(&["uninstall"]).starts_with("nothing to do"),
        "it is not where one is looked for"
    );
    node.fine(&["uninstall", "--install-dir", "/srv/gpu"]);
    assert!(!node.path("/srv").exists());
    node.refused(
        &["install", "--install-dir", "relative"],
        &["is not an absolute directory"],
    );

    // The package's entry, and one of another runtime.
    let package = "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/fleet-nvidia\"\n";
    let node = Node::new(&[(CRIO, package)]);
    node.refused(
        &["install"],
        &["crio knows `nvidia` already, as /usr/bin/fleet-nvidia; hint: "],
    );
    node.fine(&["install", "--runtime-name", "fleet-nvidia"]);
    node.fine(&["uninstall"]);
    assert_eq!(node.read(CRIO), package);
    let node = Node::new(&[(
        CRIO,
        "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/crun\"\n",
    )]);
    node.refused(
        &["install"],
        &["crio knows `nvidia` already, as /usr/bin/crun"],
    );
}

#[test]
fn beside_the_gpu_operator_it_takes_another_name() {
    let theirs = "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/local/nvidia/toolkit/nvidia-container-runtime\"\n";
    let operator = "/etc/crio/crio.conf.d/99-nvidia.toml";
    let node = Node::new(&[(operator, theirs)]);
    node.refused(
        &["install"],
        &[
            "99-nvidia.toml:1 defines handler `nvidia` as well",
            "`--runtime-name fleet-nvidia`",
        ],
    );
    node.fine(&["install", "--runtime-name", "fleet-nvidia"]);
    assert_eq!(node.read(operator), theirs);
    // It comes later, and takes the name.
    fs::remove_file(node.path(operator)).unwrap();
    node.fine(&["install"]);
    node.write(operator, theirs);
    let (verdict, status) = node.status();
    assert_eq!(verdict, Verdict::Faulty);
    let problem = status["engines"][0]["problem"].as_str().unwrap();
    assert!(
        problem.contains("99-nvidia.toml:1 defines handler `nvidia`"),
        "{status}"
    );
}

#[test]
fn containers_keep_it_where_it_is() {
    let node = Node::new(&[("/usr/bin/crio", "")]);
    node.fine(&["install"]);
    let state =
        r#"{"version": 1, "id": "pod1", "pid": 1, "created": "", "cgroup": {"path": "/x"}}"#;
    node.write("/run/fleet-nvidia/pod1/state.json", state);
    node.refused(
        &["uninstall"],
        &["containers still need the runtime: pod1; hint: "],
    );
    let (verdict, _, remarks) = node.run(&["uninstall", "--force"]);
    assert_eq!(verdict.unwrap(), Verdict::Fine);
    assert!(
        remarks.contains("left without their runtime: pod1"),
        "{remarks}"
    );
    assert!(!node.path("/opt").exists());
}

/// The engine could neither stop nor remove the container that this is said from, nor its pod.
#[test]
fn its_own_container_keeps_the_program_and_nothing_else() {
    let node = Node::new(&[("/usr/bin/crio", "")]);
    node.fine(&["install"]);
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    let elsewhere = Path::new("mnt:[1]");
    let users = [
        ("own", 77, own.as_path()),
        ("pod", 78, elsewhere),
        ("other", 79, elsewhere),
    ];
    for (id, pid, files) in users {
        let state =
            json!({"version": 1, "id": id, "pid": pid, "created": "", "cgroup": {"path": "/x"}});
        let spec = json!({"annotations": {"io.kubernetes.cri-o.SandboxID": "pod"}});
        node.write(
            &format!("/run/fleet-nvidia/{id}/state.json"),
            &state.to_string(),
        );
        node.write(
            &format!("/run/fleet-nvidia/{id}/config.json"),
            &spec.to_string(),
        );
        fs::create_dir_all(node.path(&format!("/proc/{pid}/ns"))).unwrap();
        symlink(files, node.path(&format!("/proc/{pid}/ns/mnt"))).unwrap();
    }
    node.refused(
        &["uninstall"],
        &["containers still need the runtime: other; hint: "],
    );
    fs::remove_dir_all(node.path("/run/fleet-nvidia/other")).unwrap();
    let (verdict, out, _) = node.run(&["uninstall"]);
    assert_eq!(verdict.unwrap(), Verdict::Fine);
    assert!(
        out.contains("/opt/fleet-nvidia stays for now: this container itself is run from it"),
        "{out}"
    );
    assert!(node.path(PROGRAM).exists() && !node.path(CRIO).exists());
    fs::remove_dir_all(node.path("/run/fleet-nvidia")).unwrap();
    node.fine(&["uninstall"]);
    assert!(!node.path("/opt").exists());
}

#[test]
fn what_is_wrong_is_said() {
    let node = Node::new(&[]);
    node.refused(
        &["install"],
        &["neither CRI-O nor containerd is on the node"],
    );
    node.refused(&["status"], &["there is no installation"]);
    node.write("/usr/bin/crio", "");
    fs::write(
        node.source.path().join("fleet-nvidia"),
        "#!/bin/sh\necho runc version 1\n",
    )
    .unwrap();
    let err = node.run(&["install"]).0.unwrap_err().to_string();
    assert!(
        err.ends_with("fleet-nvidia --version does not tell a version of fleet-nvidia"),
        "{err}"
    );
    node.build("1");
    node.fine(&["install"]);
    fs::remove_file(node.path(PROGRAM)).unwrap();
    fs::remove_file(node.path(CRIO)).unwrap();
    let (verdict, out, _) = node.run(&["status"]);
    assert_eq!(verdict.unwrap(), Verdict::Faulty);
    assert!(
        out.contains(
            "fault: /opt/fleet-nvidia/current/fleet-nvidia is missing; hint: install again\n"
        ),
        "{out}"
    );
    assert!(
        out.contains("crio `nvidia`: fault: the entry is gone\n"),
        "{out}"
    );
    // A version that is not whole is not taken for one.
    node.fine(&["install"]);
    assert_eq!(
        (node.version().as_str(), node.status().0),
        ("1", Verdict::Fine)
    );
}
