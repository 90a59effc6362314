//! A machine whose CDI spec can be made anew in memory, for a container that a spec file has become untrue for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fleet_cdi::{Registry, Wanted};
use fleet_host::nodes::{DeviceNode, Stated};
use fleet_host::{
    Host, HostRoot, MissingNodes, NodeStat, Partition, Rebuilt, Store, Supplied, SupplyState, Tree,
    proc, supply,
};
use fleet_inject::{DeviceKind, DeviceStat, HostProbe, OldMig};

use crate::Output;
use crate::cache::{Cache, Looked};
use crate::error::DiscoverError;
use crate::machine::Machine;
use crate::modes::WITHOUT_CUDA;
use crate::options::{Mode, Options, Stamping};

/// The kind that can be made.
const KIND: &str = "nvidia.com/gpu";

/// The machine with its specs, and with what they would be now.
#[derive(Clone, Debug)]
pub struct Live {
    host: HostRoot,
    root: PathBuf,
    cache: Option<Cache>,
    missing: MissingNodes,
    /// Nodes that would be made, for one who only asks.
    promised: RefCell<BTreeMap<String, NodeStat>>,
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
            missing: MissingNodes::default(),
            promised: RefCell::default(),
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

    /// The same, with what is done about nodes that are missing.
    #[must_use]
    pub fn with_missing_nodes(self, missing: MissingNodes) -> Self {
        Self { missing, ..self }
    }

    fn rebuilt(&self, supply: bool) -> Result<Option<Rebuilt>, String> {
        // Why nodes stay missing is said by the error that follows from it.
        let supply = supply && !matches!(self.missing, MissingNodes::Stay(_));
        let Some(cache) = &self.cache else {
            return self.make(supply, &mut Vec::new());
        };
        if let Some(kept) = cache.read(supply, |looked| self.is_as(looked)) {
            return Ok(Some(kept.into()));
        }
        let mut looked = Vec::new();
        let made = self.make(supply, &mut looked)?;
        if let Some(made) = &made {
            cache.write(supply, &looked, made);
        }
        Ok(made)
    }

    /// Whether a look at the machine would show the same.
    fn is_as(&self, looked: &Looked) -> bool {
        let machine = Machine::open(&self.root, &looked.driver, &looked.dev, &self.root);
        machine.is_ok_and(|machine| machine.still_has(&looked.facts))
    }

    fn make(&self, supply: bool, looked: &mut Vec<Looked>) -> Result<Option<Rebuilt>, String> {
        let supplied = match supply {
            true => self.supply_needed().unwrap_or_default(),
            false => Vec::new(),
        };
        let made = match self.of_driver("/", "/", looked)? {
            Made::Failed {
                why,
                container: Some(dev),
            } => match self.of_driver(CONTAINER, dev, looked)? {
                Made::Spec(made) => Made::Spec(made),
                _ => return Err(why),
            },
            other => other,
        };
        match made {
            Made::Nothing => Ok(None),
            Made::Failed { why, .. } => Err(why),
            Made::Spec(made) => Ok(Some(Rebuilt { supplied, ..*made })),
        }
    }

    /// Makes the nodes without which a spec would lack GPUs that the driver has; nothing where no driver is loaded.
    fn supply_needed(&self) -> Option<Vec<Supplied>> {
        let tree = Tree::open(&self.root, "/").ok()?;
        let needed = Stated::of(&tree)?.needed();
        Some(self.supply_nodes(&tree, &needed))
    }

    fn supply_nodes(&self, tree: &Tree, nodes: &[DeviceNode]) -> Vec<Supplied> {
        let supplied = supply(tree, nodes, self.missing);
        let promised = supplied
            .iter()
            .filter(|one| one.state == SupplyState::Promised);
        let mut table = self.promised.borrow_mut();
        table.extend(promised.map(|one| {
            let stat = NodeStat {
                major: one.node.major,
                minor: one.node.minor,
                mode: one.node.mode(),
                gid: 0,
            };
            (one.node.path.clone(), stat)
        }));
        supplied
    }

    fn of_driver(&self, driver: &str, dev: &str, looked: &mut Vec<Looked>) -> Result<Made, String> {
        let told = |err: DiscoverError| err.to_string();
        let mut machine = Machine::open(&self.root, driver, dev, &self.root).map_err(told)?;
        if dev == "/" {
            machine.dev = machine.dev.with_nodes(self.promised.borrow().clone());
        }
        if self.cache.is_some() {
            machine = machine.remembering();
        }
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
        Ok(output) => of_output(output),
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

fn of_output(output: Output) -> Made {
    let Some(main) = output.specs.into_iter().next() else {
        return Made::Nothing;
    };
    let about = |words: &str| {
        let found = output.warnings.iter().filter(|text| text.contains(words));
        found.cloned().collect()
    };
    Made::Spec(Box::new(Rebuilt {
        spec: main.spec,
        warnings: about(WITHOUT_CUDA),
        left_out: about("is left out"),
        supplied: Vec::new(),
    }))
}

/// Where NVIDIA's operator for Kubernetes unpacks a driver that comes in a container.
const CONTAINER: &str = "/run/nvidia/driver";

/// What a root of the driver gives.
enum Made {
    Spec(Box<Rebuilt>),
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
        let found = self.host.lstat_device(path);
        let promised = self.promised.borrow();
        let (Err(_), Some(node)) = (&found, promised.get(path)) else {
            return found;
        };
        Ok(DeviceStat {
            kind: DeviceKind::Char,
            major: node.major,
            minor: node.minor,
            mode: node.mode,
        })
    }

    fn exists(&self, path: &str) -> bool {
        self.host.exists(path)
    }

    fn without_partition<'p>(&self, paths: &[&'p str]) -> Vec<&'p str> {
        self.host.without_partition(paths)
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

    fn registry_for(&self, dirs: &[PathBuf], wanted: &Wanted) -> Registry {
        self.host.registry_for(dirs, wanted)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.host.list(dir)
    }

    fn partition(&self, old: &OldMig<'_>) -> Result<Partition, String> {
        self.host.partition(old)
    }

    fn rebuild(&self, kind: &str, supply: bool) -> Result<Option<Rebuilt>, String> {
        match kind == KIND {
            true => self.rebuilt(supply),
            false => Ok(None),
        }
    }

    fn supply(&self, paths: &[&str]) -> Vec<Supplied> {
        let is_missing = |path: &&&str| {
            let found = self.lstat_device(path);
            found.is_err_and(|err| err.kind() == io::ErrorKind::NotFound)
        };
        let missing: Vec<&&str> = paths.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return Vec::new();
        }
        let Ok(tree) = Tree::open(&self.root, "/") else {
            return Vec::new();
        };
        let Some(stated) = Stated::of(&tree) else {
            return Vec::new();
        };
        let mut nodes: Vec<_> = missing
            .into_iter()
            .filter_map(|path| stated.node(path))
            .collect();
        nodes.sort();
        nodes.dedup();
        self.supply_nodes(&tree, &nodes)
    }
}
