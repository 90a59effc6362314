//! A machine whose CDI spec can be made anew in memory, for a container that a spec file has become untrue for.

use std::io;
use std::path::{Path, PathBuf};

use fleet_cdi::{Registry, Spec};
use fleet_host::{Host, HostRoot, proc};
use fleet_inject::{DeviceStat, HostProbe};

use crate::error::DiscoverError;
use crate::machine::Machine;
use crate::options::{Mode, Options, Stamping};

/// The kind that can be made.
const KIND: &str = "nvidia.com/gpu";

/// The machine with its specs, and with what they would be now.
#[derive(Clone, Debug)]
pub struct Live {
    host: HostRoot,
    root: PathBuf,
}

impl Default for Live {
    fn default() -> Self {
        Self::new(Path::new("/"))
    }
}

impl Live {
    /// A machine whose `/` is this directory.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            host: HostRoot::new(root),
            root: root.to_path_buf(),
        }
    }

    fn spec(&self) -> Result<Option<Spec>, String> {
        let own = self.of_driver("/", "/")?;
        let in_container = || {
            // Nodes may be made in there, too.
            let dev = match self.host.exists("/dev/nvidiactl") {
                true => "/",
                false => CONTAINER,
            };
            self.of_driver(CONTAINER, dev)
        };
        match own {
            Made::Nothing => Ok(None),
            Made::Spec(spec) => Ok(Some(*spec)),
            Made::Failed(why) if self.host.exists(CONTAINER) => match in_container()? {
                Made::Spec(spec) => Ok(Some(*spec)),
                _ => Err(why),
            },
            Made::Failed(why) => Err(why),
        }
    }

    fn of_driver(&self, driver: &str, dev: &str) -> Result<Made, String> {
        let told = |err: DiscoverError| err.to_string();
        let machine = Machine::open(&self.root, driver, dev, &self.root).map_err(told)?;
        let inventory = proc::inventory(&machine.system);
        // Without a driver there is nothing that a spec could be made from.
        if inventory.driver_version.is_none() {
            return Ok(Made::Nothing);
        }
        let options = Options {
            mode: Mode::Nvml,
            stamping: Stamping::Never,
            ..Options::default()
        };
        match crate::generate(&machine, Some(&inventory), &options) {
            Ok(output) => {
                let main = output.specs.into_iter().next();
                Ok(main.map_or(Made::Nothing, |main| Made::Spec(Box::new(main.spec))))
            }
            Err(err) => Ok(Made::Failed(err.to_string())),
        }
    }
}

/// Where NVIDIA's operator for Kubernetes unpacks a driver that comes in a container.
const CONTAINER: &str = "/run/nvidia/driver";

/// What a root of the driver gives.
enum Made {
    Spec(Box<Spec>),
    /// No driver is loaded.
    Nothing,
    /// Nodes or files are not there.
    Failed(String),
}

impl HostProbe for Live {
    fn lstat_device(&self, path: &str) -> io::Result<DeviceStat> {
        self.host.lstat_device(path)
    }

    fn exists(&self, path: &str) -> bool {
        self.host.exists(path)
    }

    fn driver_version(&self) -> Option<String> {
        self.host.driver_version()
    }
}

impl Host for Live {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.host.read(path)
    }

    fn registry(&self, dirs: &[PathBuf]) -> Registry {
        self.host.registry(dirs)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.host.list(dir)
    }

    fn rebuild(&self, kind: &str) -> Result<Option<Spec>, String> {
        match kind == KIND {
            true => self.spec(),
            false => Ok(None),
        }
    }
}
