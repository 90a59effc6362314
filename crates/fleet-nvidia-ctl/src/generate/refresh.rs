//! `cdi refresh`: the spec of the node as it is now, in the place of the one from before.
//!
//! Runs at boot, when a module is loaded and when the driver's files change, so it may run while the driver is not ready:
//! then the old spec stays.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use fleet_cdi::{Format, Spec, encode_spec, read_spec, write_spec};
use fleet_discover::Machine;
use fleet_host::gpu::Inventory;
use fleet_host::proc::pci_gpus;

use super::{Generate, GenerateError, format, make, with_infix};
use crate::cli::Cli;
use crate::{CtlError, Verdict};

/// Not `nvidia.yaml`: that is the toolkit's, whose own service would write over ours.
const PLACE: &str = "var/run/cdi/fleet-nvidia.yaml";
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub(crate) struct Refresh {
    /// Replace the old spec even where GPUs of the machine are missing in the new one
    #[arg(long)]
    force: bool,
    /// Wait up to N seconds for a driver that is not ready yet
    #[arg(long, value_name = "N", default_value_t = 0)]
    wait: u64,
    #[command(flatten)]
    generate: Generate,
}

/// The old spec was left as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshError {
    #[error(
        "refresh {}: the machine has {present} GPUs, the driver tells of {told} and the old spec of {known}; hint: it is kept until the driver is ready, `--force` replaces it", .path.display()
    )]
    NotReady {
        path: PathBuf,
        present: usize,
        told: usize,
        known: usize,
    },
    #[error(
        "refresh {}: {} has {device}, too, and of two files in one directory engines use neither; hint: remove that file and whatever writes it (the toolkit's is nvidia-cdi-refresh.path and .service), or name it with `--output`", .path.display(), .other.display()
    )]
    Conflict {
        path: PathBuf,
        other: PathBuf,
        device: String,
    },
    #[error("list {}: {cause}", .dir.display())]
    List { dir: PathBuf, cause: std::io::Error },
}

pub(crate) fn run(
    cli: &Cli,
    args: &Refresh,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let end = Instant::now() + Duration::from_secs(args.wait);
    loop {
        // What the last attempt has to say counts.
        let mut said = Vec::new();
        let attempt = refresh(cli, args, out, &mut said);
        if attempt.as_ref().is_err_and(may_pass) && Instant::now() < end {
            sleep(PAUSE);
            continue;
        }
        remarks.write_all(&said)?;
        return attempt;
    }
}

/// Whether a driver that is still starting explains the failure.
fn may_pass(err: &CtlError) -> bool {
    matches!(
        err,
        CtlError::Generate(GenerateError::Discover(_))
            | CtlError::Refresh(RefreshError::NotReady { .. })
    )
}

fn refresh(
    cli: &Cli,
    args: &Refresh,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> Result<Verdict, CtlError> {
    let place = place(cli, args);
    let format = format(&args.generate, Some(&place))?;
    let made = make(cli, &args.generate, remarks)?;
    let specs: Vec<(PathBuf, &Spec)> = made
        .output
        .specs
        .iter()
        .map(|made| (with_infix(&place, made.infix), &made.spec))
        .collect();
    let own: Vec<&Path> = specs.iter().map(|(path, _)| path.as_path()).collect();
    for (path, spec) in &specs {
        no_conflict(path, spec, &own)?;
        if !args.force {
            ready(path, spec, &made.machine, made.inventory.as_ref())?;
        }
    }
    for (path, spec) in &specs {
        replace(path, spec, format, out)?;
    }
    Ok(Verdict::Fine)
}

fn place(cli: &Cli, args: &Refresh) -> PathBuf {
    let root = cli.root_dir.as_deref().unwrap_or_else(|| Path::new("/"));
    let given = args.generate.output().map(Path::to_path_buf);
    given.unwrap_or_else(|| root.join(PLACE))
}

/// CDI SPEC 1.1.0: a device that two specs of one directory define cannot be injected.
fn no_conflict(path: &Path, spec: &Spec, own: &[&Path]) -> Result<(), RefreshError> {
    let names = names(spec);
    let Some(dir) = path.parent() else {
        return Ok(());
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => {
            let dir = dir.to_path_buf();
            return Err(RefreshError::List { dir, cause });
        }
    };
    for other in entries.flatten().map(|entry| entry.path()) {
        if own.contains(&other.as_path()) {
            continue;
        }
        // What is no spec, or a broken one, takes no name.
        let Ok(found) = read_spec(&other) else {
            continue;
        };
        if let Some(device) = self::names(&found).intersection(&names).next() {
            return Err(RefreshError::Conflict {
                path: path.to_path_buf(),
                other: other.clone(),
                device: device.clone(),
            });
        }
    }
    Ok(())
}

fn names(spec: &Spec) -> BTreeSet<String> {
    let name = |device: &fleet_cdi::Device| format!("{}={}", spec.kind, device.name);
    spec.devices.iter().map(name).collect()
}

/// Fewer GPUs than before are right where the machine has no more of them, as one was taken out, and where the driver
/// tells of one that is partitioned into nothing.
fn ready(
    path: &Path,
    spec: &Spec,
    machine: &Machine,
    inventory: Option<&Inventory>,
) -> Result<(), RefreshError> {
    let Ok(old) = read_spec(path) else {
        return Ok(());
    };
    let told = inventory.iter().flat_map(|told| &told.gpus);
    let empty = told.filter(|gpu| gpu.mig.as_ref().is_some_and(Vec::is_empty));
    let (told, known) = (gpus(spec) + empty.count(), gpus(&old));
    let present = pci_gpus(&machine.system).len();
    if told < known && told < present {
        return Err(RefreshError::NotReady {
            path: path.to_path_buf(),
            present,
            told,
            known,
        });
    }
    Ok(())
}

/// Nodes `/dev/nvidiaN`, one for each GPU, whole or partitioned.
fn gpus(spec: &Spec) -> usize {
    let is_gpu = |path: &&str| {
        let number = path.rsplit_once("/nvidia").map(|(_, number)| number);
        number
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let nodes = spec
        .devices
        .iter()
        .flat_map(|device| &device.container_edits.device_nodes);
    let paths: BTreeSet<&str> = nodes
        .map(|node| node.path.as_str())
        .filter(is_gpu)
        .collect();
    paths.len()
}

fn replace(path: &Path, spec: &Spec, format: Format, out: &mut dyn Write) -> Result<(), CtlError> {
    let text = encode_spec(spec, format).map_err(GenerateError::from)?;
    let old = fs::read(path).ok();
    if old.as_deref() == Some(text.as_bytes()) {
        writeln!(out, "{}: up to date", path.display())?;
        return Ok(());
    }
    write_spec(spec, path, format).map_err(GenerateError::from)?;
    let verb = if old.is_some() { "replaced" } else { "written" };
    let count = spec.devices.len();
    writeln!(out, "{}: {verb}, {count} devices", path.display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleet_cdi::Format;

    use super::*;

    fn spec(gpus: &[u32]) -> String {
        let device = |gpu: &u32| {
            format!(
                "- name: \"{gpu}\"\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia{gpu}\n    - path: /dev/nvidiactl\n"
            )
        };
        let devices: String = gpus.iter().map(device).collect();
        format!("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n{devices}")
    }

    fn parsed(dir: &Path, name: &str, gpus: &[u32]) -> (PathBuf, Spec) {
        let path = dir.join(name);
        fs::write(&path, spec(gpus)).unwrap();
        let parsed = read_spec(&path).unwrap();
        (path, parsed)
    }

    /// A machine with so many GPUs on its bus.
    fn machine(gpus: usize) -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        for gpu in 0..gpus {
            let device = dir
                .path()
                .join(format!("sys/bus/pci/devices/0000:0{gpu}:00.0"));
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("vendor"), "0x10de\n").unwrap();
            fs::write(device.join("class"), "0x030200\n").unwrap();
        }
        let machine = Machine::open(dir.path(), "/", "/", dir.path()).unwrap();
        (dir, machine)
    }

    #[test]
    fn a_gpu_that_the_driver_has_not_found_yet_keeps_the_old_spec() {
        let dir = tempfile::tempdir().unwrap();
        let (_, poorer) = parsed(dir.path(), "new.yaml", &[0]);
        let (old, _) = parsed(dir.path(), "old.yaml", &[0, 1]);
        let (_tree, two) = machine(2);
        let err = ready(&old, &poorer, &two, None).unwrap_err().to_string();
        assert!(err.contains("has 2 GPUs, the driver tells of 1"), "{err}");
        let (_tree, one) = machine(1);
        assert!(ready(&old, &poorer, &one, None).is_ok(), "it was taken out");
        assert!(ready(&dir.path().join("none.yaml"), &poorer, &two, None).is_ok());
        // All partitions of a GPU are destroyed before others are made.
        let gpu = |mig| fleet_host::gpu::Gpu {
            index: 1,
            minor: 1,
            uuid: None,
            bus_id: None,
            name: String::new(),
            mig,
            coherent: None,
            arch: None,
            brand: None,
        };
        for (mig, is_ready) in [(Some(Vec::new()), true), (None, false)] {
            let told = Inventory {
                gpus: vec![gpu(mig)],
                ..Inventory::default()
            };
            assert_eq!(ready(&old, &poorer, &two, Some(&told)).is_ok(), is_ready);
        }
    }

    #[test]
    fn the_toolkits_file_beside_ours_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (own, ours) = parsed(dir.path(), "fleet-nvidia.yaml", &[0, 1]);
        assert!(no_conflict(&own, &ours, &[&own]).is_ok());
        fs::write(dir.path().join("broken.yaml"), "kind: x\n").unwrap();
        assert!(no_conflict(&own, &ours, &[&own]).is_ok());
        parsed(dir.path(), "nvidia.yaml", &[1]);
        let err = no_conflict(&own, &ours, &[&own]).unwrap_err().to_string();
        assert!(
            err.contains("/nvidia.yaml has nvidia.com/gpu=1, too")
                && err.contains("nvidia-cdi-refresh"),
            "{err}"
        );
        let elsewhere = dir.path().join("none/x.yaml");
        assert!(no_conflict(&elsewhere, &ours, &[&elsewhere]).is_ok());
    }

    #[test]
    fn an_equal_spec_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let (_, new) = parsed(dir.path(), "new.yaml", &[0]);
        let path = dir.path().join("run/cdi/own.yaml");
        let mut said = Vec::new();
        for _ in 0..2 {
            replace(&path, &new, Format::Yaml, &mut said).unwrap();
        }
        fs::write(&path, "half a fi").unwrap();
        replace(&path, &new, Format::Yaml, &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        let verbs: Vec<_> = said
            .lines()
            .map(|line| line.split(": ").nth(1).unwrap())
            .collect();
        assert_eq!(
            verbs,
            ["written, 1 devices", "up to date", "replaced, 1 devices"]
        );
        assert_eq!(read_spec(&path).unwrap(), new);
    }

    #[test]
    fn control_nodes_are_no_gpus() {
        let dir = tempfile::tempdir().unwrap();
        let (_, spec) = parsed(dir.path(), "new.yaml", &[0, 11]);
        assert_eq!(gpus(&spec), 2);
    }
}
