//! The real driver's user space.

use fleet_tests::driver;

use super::*;

/// Directory of the CUDA library in a list of files, and its version.
pub(super) fn cuda(files: &[String]) -> (String, String) {
    let found = files.iter().find_map(|path| {
        path.split_once("/libcuda.so.")
            .filter(|(_, end)| end.contains('.'))
    });
    let (dir, version) = found.expect("a CUDA library");
    (dir.to_owned(), version.to_owned())
}

/// The description of a machine with this driver.
pub(super) fn machine_of(version: &str) -> String {
    let description = PathBuf::from("/run")
        .join(unique("machine"))
        .with_extension("toml");
    let text = format!("driver = \"{version}\"\n[[gpu]]\nmodel = \"h100\"\n");
    fs::write(&description, text).expect("write a description");
    description.display().to_string()
}

/// The user space of the real driver, from Debian's packages; nothing, loudly, where they cannot be had.
pub(super) fn real_driver(test: &str) -> Option<(PathBuf, Vec<String>)> {
    let dir = driver::unpacked(test)?;
    let root = dir.join("root");
    // As the packages' own scripts leave it: one directory tree, and programs of the chosen driver by links.
    for (link, target) in [
        ("lib", "usr/lib"),
        (
            "etc/alternatives/nvidia--nvidia-smi",
            "/usr/lib/nvidia/current/nvidia-smi",
        ),
        ("usr/bin/nvidia-smi", "/etc/alternatives/nvidia--nvidia-smi"),
        (
            "etc/alternatives/nvidia--nvidia_drv.so",
            "/usr/lib/nvidia/current/nvidia_drv.so",
        ),
        (
            "usr/lib/xorg/modules/drivers/nvidia_drv.so",
            "/etc/alternatives/nvidia--nvidia_drv.so",
        ),
    ] {
        let link = root.join(link);
        fs::create_dir_all(link.parent().expect("a parent")).expect("mkdir");
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(target, &link).expect("make a link");
        }
    }
    let files = fs::read_to_string(dir.join("files")).expect("read the list");
    Some((root, files.lines().map(str::to_owned).collect()))
}

/// What is generated over the real driver's files.
struct Generated {
    root: PathBuf,
    files: Vec<String>,
    edits: fleet_cdi::ContainerEdits,
    _node: Node,
}

impl Generated {
    fn new(test: &str) -> Option<Self> {
        let (root, files) = real_driver(test)?;
        let (_, version) = cuda(&files);
        let node = Node::new(test, &machine_of(&version))?;
        let (driver, sim) = (root.display().to_string(), node.0.display().to_string());
        let file = node.0.join("real.yaml");
        let output = file.display().to_string();
        let mut args = vec!["cdi", "generate", "--source", "proc", "--output", &output];
        args.extend(["--driver-root", &driver]);
        args.extend(["--dev-root", &sim, "--system-root", &sim]);
        let out = node.ctl(&args);
        assert!(
            out.code == 0 && !out.stderr.contains("left out"),
            "{out:#?}"
        );
        let edits = read_spec(&file).expect("a valid spec").container_edits;
        Some(Self {
            root,
            files,
            edits,
            _node: node,
        })
    }

    fn mounted(&self) -> BTreeSet<&str> {
        let mounts = self.edits.mounts.iter();
        mounts.map(|mount| mount.container_path.as_str()).collect()
    }

    /// Whether a file of this name is mounted anywhere.
    fn mounts_one_named(&self, wanted: &str) -> bool {
        self.mounted()
            .iter()
            .any(|path| path.rsplit('/').next() == Some(wanted))
    }

    fn is_link(&self, path: &str) -> bool {
        fs::symlink_metadata(self.root.join(path.trim_start_matches('/')))
            .is_ok_and(|meta| meta.is_symlink())
    }

    /// Files of the packages among the libraries: those that are links, or the others.
    fn in_libraries(&self, links: bool) -> impl Iterator<Item = &str> {
        let files = self.files.iter().map(String::as_str);
        files.filter(move |path| {
            path.starts_with("/usr/lib/x86_64-linux-gnu/") && self.is_link(path) == links
        })
    }

    fn has_all_libraries(&self) {
        let mounted = self.mounted();
        let libraries = self.in_libraries(false);
        let libraries: Vec<_> = libraries.filter(|path| path.contains(".so")).collect();
        assert!(libraries.len() > 25, "only {libraries:?} in the packages");
        for library in libraries {
            assert!(mounted.contains(library), "{library} is missed");
        }
        let xorg = "/usr/lib/xorg/modules/drivers/nvidia_drv.so";
        assert!(mounted.contains(xorg), "{mounted:?}");
    }

    fn has_all_links(&self) {
        let args = self.edits.hooks.iter().flat_map(|hook| &hook.args);
        let made: BTreeSet<&str> = args
            .filter_map(|arg| Some(arg.split_once("::")?.1))
            .collect();
        for link in self.in_libraries(true) {
            // Those of the EGL platform are made by the loader's own update, and GBM's lies elsewhere in a container.
            let elsewhere = link.contains("libnvidia-egl-") || link.ends_with("nvidia-drm_gbm.so");
            assert!(elsewhere || made.contains(link), "{link} is missed");
        }
    }

    fn has_programs_and_data(&self) {
        let programs = [
            "nvidia-smi",
            "nvidia-persistenced",
            "nvidia-cuda-mps-control",
            "nvidia-cuda-mps-server",
        ];
        let is_data = |path: &&String| {
            let ends = [".icd", "_icd.json"].iter().any(|end| path.ends_with(end));
            ends || path.contains("/gsp_") || path.contains("egl_")
        };
        let data = self.files.iter().filter(is_data);
        let data = data.filter_map(|path| path.rsplit('/').next());
        for name in programs.into_iter().chain(data) {
            assert!(self.mounts_one_named(name), "{name} is missed");
        }
    }

    fn leads_to_files(&self) {
        for mount in &self.edits.mounts {
            let path = &mount.host_path;
            let is_file = fs::metadata(path).is_ok_and(|meta| !meta.is_dir());
            assert!(is_file, "{path} leads to no file");
        }
    }
}

/// Every library of the packages that the rules name is mounted, with its links; nothing is passed over.
#[test]
fn no_file_of_the_real_driver_is_missed() {
    let Some(generated) = Generated::new("no_file_of_the_real_driver_is_missed") else {
        return;
    };
    generated.has_all_libraries();
    generated.has_all_links();
    generated.has_programs_and_data();
    generated.leads_to_files();
}
