//! Devices that follow from what the host has, for machines where no CDI spec states them: GPUDirect Storage,
//! InfiniBand, GDRCopy, NVSwitch, IMEX channels, and the rights over MIG.
//!
//! The rules are those by which NVIDIA's generator writes specs of these kinds. The nodes' numbers are read when the plan
//! is made, as for any device whose spec leaves them out.

use std::path::{Path, PathBuf};

use fleet_cdi::{ContainerEdits, DeviceNode, Mount, QualifiedName, SourcedEdits};

use crate::inject::Host;

const MIG_MINORS: &str = "/proc/driver/nvidia-caps/mig-minors";
const IMEX_DIR: &str = "/dev/nvidia-caps-imex-channels";

/// Whether a device is of one of these kinds.
pub(crate) fn is_known(name: &QualifiedName) -> bool {
    kind(name).is_some()
}

#[derive(Clone, Copy)]
enum Kind {
    Gds,
    Mofed,
    Gdrcopy,
    Nvswitch,
    Imex,
    Mig,
}

fn kind(name: &QualifiedName) -> Option<Kind> {
    match name.kind() {
        "nvidia.com/gds" => Some(Kind::Gds),
        "nvidia.com/mofed" => Some(Kind::Mofed),
        "nvidia.com/gdrcopy" => Some(Kind::Gdrcopy),
        "nvidia.com/nvswitch" => Some(Kind::Nvswitch),
        "nvidia.com/imex-channel" => Some(Kind::Imex),
        "nvidia.com/mig-caps" => Some(Kind::Mig),
        _ => None,
    }
}

/// The edits of such a device; they name no file.
///
/// # Errors
/// What the host lacks.
pub(crate) fn edits(name: &QualifiedName, host: &dyn Host) -> Result<SourcedEdits, String> {
    let edits = match kind(name) {
        Some(Kind::Imex) => imex(name.name(), host),
        Some(Kind::Mig) => mig(name.name(), host),
        Some(_) if name.name() != "all" => Err("the only device of this kind is all".to_owned()),
        Some(Kind::Gds) => gds(host),
        Some(Kind::Mofed) => mofed(host),
        Some(Kind::Gdrcopy) => present(&["/dev/gdrdrv"], host),
        Some(Kind::Nvswitch) => nvswitch(host),
        None => Err("it is in no CDI spec".to_owned()),
    }?;
    Ok(SourcedEdits {
        spec_path: PathBuf::new(),
        device: Some(name.clone()),
        edits,
    })
}

fn gds(host: &dyn Host) -> Result<ContainerEdits, String> {
    let nodes = named("/dev", |name| name.starts_with("nvidia-fs"), host);
    let mut edits = some(nodes, "/dev/nvidia-fs*")?;
    let files = ["/run/udev", "/etc/cufile.json"];
    edits.mounts = files
        .into_iter()
        .filter(|path| host.exists(path))
        .map(read_only)
        .collect();
    Ok(edits)
}

fn mofed(host: &dyn Host) -> Result<ContainerEdits, String> {
    let is_verbs = |name: &str| name.starts_with("uverbs") || name == "rdma_cm";
    let nodes = named("/dev/infiniband", is_verbs, host);
    some(nodes, "/dev/infiniband/uverbs*")
}

fn nvswitch(host: &dyn Host) -> Result<ContainerEdits, String> {
    let is_switch = |name: &str| {
        let number = name.strip_prefix("nvidia-nvswitch");
        number.is_some_and(|number| number == "ctl" || is_number(number))
    };
    some(named("/dev", is_switch, host), "/dev/nvidia-nvswitch*")
}

fn imex(id: &str, host: &dyn Host) -> Result<ContainerEdits, String> {
    let number = id.strip_prefix("channel").unwrap_or(id);
    match is_number(number) {
        true => present(&[&format!("{IMEX_DIR}/channel{number}")], host),
        false => Err("it is not the number of a channel".to_owned()),
    }
}

/// The file has lines such as `config 1` and `gpu0/gi1/access 12`.
fn mig(right: &str, host: &dyn Host) -> Result<ContainerEdits, String> {
    let text = host
        .read(Path::new(MIG_MINORS))
        .map_err(|err| format!("{MIG_MINORS} {}", fleet_inject::io_cause(&err)))?;
    let minor = text.lines().find_map(|line| {
        let (name, minor) = line.split_once(' ')?;
        (name == right && is_number(minor)).then_some(minor)
    });
    match minor {
        Some(minor) => present(&[&format!("/dev/nvidia-caps/nvidia-cap{minor}")], host),
        None => Err(format!("{MIG_MINORS} has no entry for it")),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Device nodes of a directory, by name.
fn named(dir: &str, wanted: impl Fn(&str) -> bool, host: &dyn Host) -> Vec<String> {
    let names = host.list(Path::new(dir)).unwrap_or_default();
    let paths = names.iter().filter(|name| wanted(name));
    paths
        .map(|name| format!("{dir}/{name}"))
        .filter(|path| host.lstat_device(path).is_ok())
        .collect()
}

fn some(nodes: Vec<String>, pattern: &str) -> Result<ContainerEdits, String> {
    match nodes.is_empty() {
        true => Err(format!("this host has no {pattern}")),
        false => Ok(of_nodes(nodes)),
    }
}

fn present(paths: &[&str], host: &dyn Host) -> Result<ContainerEdits, String> {
    match paths.iter().find(|path| !host.exists(path)) {
        Some(path) => Err(format!("this host has no {path}")),
        None => Ok(of_nodes(
            paths.iter().map(|path| (*path).to_owned()).collect(),
        )),
    }
}

fn of_nodes(paths: Vec<String>) -> ContainerEdits {
    let node = |path| DeviceNode {
        path,
        ..DeviceNode::default()
    };
    ContainerEdits {
        device_nodes: paths.into_iter().map(node).collect(),
        ..ContainerEdits::default()
    }
}

fn read_only(path: &str) -> Mount {
    let options = ["ro", "nosuid", "nodev", "rbind", "rprivate"];
    Mount {
        host_path: path.to_owned(),
        container_path: path.to_owned(),
        mount_type: None,
        options: options.map(str::to_owned).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::root::HostRoot;

    fn lacks(name: &str, host: &HostRoot) -> String {
        edits(&name.parse().unwrap(), host).unwrap_err()
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostRoot::new(dir.path());
        let cases = [
            ("nvidia.com/gds=all", "this host has no /dev/nvidia-fs*"),
            (
                "nvidia.com/mofed=all",
                "this host has no /dev/infiniband/uverbs*",
            ),
            ("nvidia.com/gdrcopy=all", "this host has no /dev/gdrdrv"),
            (
                "nvidia.com/nvswitch=all",
                "this host has no /dev/nvidia-nvswitch*",
            ),
            ("nvidia.com/gds=0", "the only device of this kind is all"),
            (
                "nvidia.com/imex-channel=7",
                "this host has no /dev/nvidia-caps-imex-channels/channel7",
            ),
            (
                "nvidia.com/imex-channel=x",
                "it is not the number of a channel",
            ),
            (
                "nvidia.com/mig-caps=config",
                "/proc/driver/nvidia-caps/mig-minors is missing",
            ),
        ];
        for (name, want) in cases {
            assert_eq!(lacks(name, &host), want);
        }
    }

    #[test]
    fn odd_lines_of_the_minors_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostRoot::new(dir.path());
        fs::create_dir_all(dir.path().join("proc/driver/nvidia-caps")).unwrap();
        fs::create_dir_all(dir.path().join("dev/nvidia-caps")).unwrap();
        fs::write(dir.path().join("dev/nvidia-caps/nvidia-cap2"), "").unwrap();
        let minors = "\nconfig\nconfig x\nconfig ../../sda\nmonitor 2\ngpu0/gi1/access 3\n";
        fs::write(
            dir.path().join("proc/driver/nvidia-caps/mig-minors"),
            minors,
        )
        .unwrap();
        let found = edits(&"nvidia.com/mig-caps=monitor".parse().unwrap(), &host).unwrap();
        assert_eq!(
            found.edits.device_nodes[0].path,
            "/dev/nvidia-caps/nvidia-cap2"
        );
        assert_eq!(
            lacks("nvidia.com/mig-caps=config", &host),
            "/proc/driver/nvidia-caps/mig-minors has no entry for it"
        );
    }

    #[test]
    fn a_plain_file_is_no_device() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("dev")).unwrap();
        fs::write(dir.path().join("dev/nvidia-fs0"), "").unwrap();
        let host = HostRoot::new(dir.path());
        assert_eq!(
            lacks("nvidia.com/gds=all", &host),
            "this host has no /dev/nvidia-fs*"
        );
    }
}
