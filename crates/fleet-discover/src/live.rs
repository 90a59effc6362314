//! A machine whose CDI spec can be made anew in memory, for a container that a spec file has become untrue for.

use std::io;
use std::path::{Path, PathBuf};

use fleet_cdi::{Registry, Spec};
use fleet_host::{Host, HostRoot, Store, proc};
use fleet_inject::{DeviceStat, HostProbe};

use crate::cache::{Cache, Looked};
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
    cache: Option<Cache>,
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
            cache: None,
        }
    }

    /// The same, which keeps what it makes and takes it again while the machine stays as it was.
    #[must_use]
    pub fn keeping(self, store: Option<Store>) -> Self {
        Self {
            cache: store.map(Cache::new),
            ..self
        }
    }

    fn spec(&self) -> Result<Option<Spec>, String> {
        let Some(cache) = &self.cache else {
            return self.make(&mut Vec::new());
        };
        if let Some(spec) = cache.read(|looked| self.is_as(looked)) {
            return Ok(Some(spec));
        }
        let mut looked = Vec::new();
        let made = self.make(&mut looked)?;
        if let Some(spec) = &made {
            cache.write(&looked, spec);
        }
        Ok(made)
    }

    /// Whether a look at the machine would show the same.
    fn is_as(&self, looked: &Looked) -> bool {
        let machine = Machine::open(&self.root, &looked.driver, &looked.dev, &self.root);
        machine.is_ok_and(|machine| machine.still_has(&looked.facts))
    }

    fn make(&self, looked: &mut Vec<Looked>) -> Result<Option<Spec>, String> {
        match self.of_driver("/", "/", looked)? {
            Made::Nothing => Ok(None),
            Made::Spec(spec) => Ok(Some(*spec)),
            Made::Failed { why, container } => {
                let Some(dev) = container else {
                    return Err(why);
                };
                match self.of_driver(CONTAINER, dev, looked)? {
                    Made::Spec(spec) => Ok(Some(*spec)),
                    _ => Err(why),
                }
            }
        }
    }

    fn of_driver(&self, driver: &str, dev: &str, looked: &mut Vec<Looked>) -> Result<Made, String> {
        let told = |err: DiscoverError| err.to_string();
        let machine = Machine::open(&self.root, driver, dev, &self.root).map_err(told)?;
        let machine = match self.cache {
            Some(_) => machine.remembering(),
            None => machine,
        };
        let made = of_machine(&machine);
        looked.push(Looked {
            driver: driver.to_owned(),
            dev: dev.to_owned(),
            facts: machine.facts(),
        });
        Ok(made)
    }
}

fn of_machine(machine: &Machine) -> Made {
    // A machine that was started anew has a new driver, whatever its files say.
    let _ = proc::boot_id(&machine.system);
    let inventory = proc::inventory(&machine.system);
    // Without a driver there is nothing that a spec could be made from.
    if inventory.driver_version.is_none() {
        return Made::Nothing;
    }
    let options = Options {
        mode: Mode::Nvml,
        stamping: Stamping::Never,
        ..Options::default()
    };
    match crate::generate(machine, Some(&inventory), &options) {
        Ok(output) => {
            let main = output.specs.into_iter().next();
            main.map_or(Made::Nothing, |main| Made::Spec(Box::new(main.spec)))
        }
        Err(err) => Made::Failed {
            why: err.to_string(),
            container: machine.host.exists(CONTAINER).then(|| {
                // Nodes may be made in there, too.
                match machine.host.exists("/dev/nvidiactl") {
                    true => "/",
                    false => CONTAINER,
                }
            }),
        },
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
    Failed {
        why: String,
        /// Root of `/dev` for a driver that comes in a container, if there is one.
        container: Option<&'static str>,
    },
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
