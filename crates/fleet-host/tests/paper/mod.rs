//! A machine made of plain files, for tests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fleet_cdi::{Format, Registry, parse};
use fleet_host::{Host, HostRoot, Partition, Rebuilt};
use fleet_inject::{DeviceKind, DeviceStat, HostProbe, OldMig};

/// A machine made of plain files; `devices` holds one node per line: path, type, major, minor, mode in octal.
pub(crate) struct PaperHost {
    root: HostRoot,
    devices: String,
    cdi: PathBuf,
    rebuilt: PathBuf,
}

impl PaperHost {
    pub(crate) fn new(host: &Path, cdi: PathBuf, rebuilt: PathBuf) -> Self {
        let devices = fs::read_to_string(host.join("devices")).unwrap_or_default();
        Self {
            root: HostRoot::new(host),
            devices,
            cdi,
            rebuilt,
        }
    }
}

impl HostProbe for PaperHost {
    fn lstat_device(&self, path: &str) -> io::Result<DeviceStat> {
        let mut lines = self
            .devices
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let Some(node) = lines.find(|node| node.first() == Some(&path)) else {
            return self.root.lstat_device(path);
        };
        let kind = match node[1] {
            "b" => DeviceKind::Block,
            "p" => DeviceKind::Fifo,
            _ => DeviceKind::Char,
        };
        let mode = u32::from_str_radix(node[4], 8).unwrap();
        Ok(DeviceStat {
            kind,
            major: node[2].parse().unwrap(),
            minor: node[3].parse().unwrap(),
            mode,
        })
    }

    fn exists(&self, path: &str) -> bool {
        self.root.exists(path) || self.lstat_device(path).is_ok()
    }

    fn without_partition<'p>(&self, paths: &[&'p str]) -> Vec<&'p str> {
        self.root.without_partition(paths)
    }

    fn driver_version(&self) -> Option<String> {
        self.root.driver_version()
    }
}

impl Host for PaperHost {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.root.read(path)
    }

    fn registry(&self, _dirs: &[PathBuf]) -> Registry {
        Registry::scan(std::slice::from_ref(&self.cdi))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let prefix = format!("{}/", dir.display());
        let nodes = self.devices.lines().filter_map(|line| {
            let name = line.split_whitespace().next()?.strip_prefix(&prefix)?;
            Some(name.split('/').next()?.to_owned())
        });
        let mut names: Vec<_> = nodes
            .chain(self.root.list(dir).unwrap_or_default())
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn partition(&self, old: &OldMig<'_>) -> Result<Partition, String> {
        self.root.partition(old)
    }

    /// What would be made from the host stands in a file of the case.
    fn rebuild(&self, kind: &str, _supply: bool) -> Result<Option<Rebuilt>, String> {
        let Ok(text) = fs::read(&self.rebuilt) else {
            return Ok(None);
        };
        if text.is_empty() {
            return Err("no GPU is found".to_owned());
        }
        let spec = parse(&text, Format::Yaml).unwrap();
        let is_wanted = spec.kind == kind;
        let made = || Rebuilt {
            spec,
            ..Rebuilt::default()
        };
        Ok(is_wanted.then(made))
    }
}
