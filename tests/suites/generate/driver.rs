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

/// Every library of the packages that the rules name is mounted, with its links; nothing is passed over.
#[test]
fn no_file_of_the_real_driver_is_missed() {
    let test = "no_file_of_the_real_driver_is_missed";
    let Some((root, files)) = real_driver(test) else {
        return;
    };
    let (_, version) = cuda(&files);
    let Some(node) = Node::new(test, &machine_of(&version)) else {
        return;
    };
    let (driver, sim) = (root.display().to_string(), node.0.display().to_string());
    let file = node.0.join("real.yaml");
    let output = file.display().to_string();
    let args = [
        "cdi",
        "generate",
        "--driver-root",
        &driver,
        "--dev-root",
        &sim,
        "--system-root",
        &sim,
        "--source",
        "proc",
        "--output",
        &output,
    ];
    let out = node.ctl(&args);
    assert!(
        out.code == 0 && !out.stderr.contains("left out"),
        "{out:#?}"
    );
    let spec = read_spec(&file).expect("a valid spec");
    let edits = &spec.container_edits;
    let mounted: BTreeSet<&str> = edits
        .mounts
        .iter()
        .map(|mount| mount.container_path.as_str())
        .collect();
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let is_link = |path: &&String| {
        fs::symlink_metadata(root.join(path.trim_start_matches('/')))
            .is_ok_and(|meta| meta.is_symlink())
    };
    let in_libraries = |path: &&String| path.starts_with("/usr/lib/x86_64-linux-gnu/");
    let libraries = files
        .iter()
        .filter(in_libraries)
        .filter(|path| !is_link(path) && path.contains(".so"));
    let mut count = 0;
    for library in libraries {
        assert!(mounted.contains(library.as_str()), "{library} is missed");
        count += 1;
    }
    assert!(count > 25, "only {count} libraries in the packages");
    for program in [
        "nvidia-smi",
        "nvidia-persistenced",
        "nvidia-cuda-mps-control",
        "nvidia-cuda-mps-server",
    ] {
        assert!(
            mounted.iter().any(|path| name(path) == program),
            "{program} is missed"
        );
    }
    for path in files.iter().filter(|path| {
        path.contains("/gsp_")
            || path.ends_with(".icd")
            || path.ends_with("_icd.json")
            || path.contains("egl_")
    }) {
        assert!(
            mounted.iter().any(|mounted| name(mounted) == name(path)),
            "{path} is missed"
        );
    }
    assert!(
        mounted.contains("/usr/lib/xorg/modules/drivers/nvidia_drv.so"),
        "{mounted:?}"
    );
    let links: BTreeSet<&str> = edits
        .hooks
        .iter()
        .flat_map(|hook| &hook.args)
        .filter_map(|arg| Some(arg.split_once("::")?.1))
        .collect();
    for link in files.iter().filter(in_libraries).filter(is_link) {
        // Those of the EGL platform are made by the loader's own update, and GBM's lies elsewhere in a container.
        let elsewhere = link.contains("libnvidia-egl-") || link.ends_with("nvidia-drm_gbm.so");
        assert!(
            elsewhere || links.contains(link.as_str()),
            "{link} is missed"
        );
    }
    for mount in &edits.mounts {
        let meta = fs::metadata(&mount.host_path);
        assert!(
            meta.is_ok_and(|meta| !meta.is_dir()),
            "{} leads to no file",
            mount.host_path
        );
    }
}
