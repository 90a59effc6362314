//! What is visible between `nvmlInit` and `nvmlShutdown`.

use std::io;
use std::sync::Mutex;

use fleet_sim_machine::{ComputeInstance, Gpu, GpuFault, GpuInstance, Machine, Platform};

use crate::place::{self, Nodes};

/// Return codes, `nvmlReturn_t`.
pub(crate) mod code {
    pub(crate) const SUCCESS: u32 = 0;
    pub(crate) const UNINITIALIZED: u32 = 1;
    pub(crate) const INVALID_ARGUMENT: u32 = 2;
    pub(crate) const NOT_SUPPORTED: u32 = 3;
    pub(crate) const NO_PERMISSION: u32 = 4;
    pub(crate) const NOT_FOUND: u32 = 6;
    pub(crate) const INSUFFICIENT_SIZE: u32 = 7;
    pub(crate) const DRIVER_NOT_LOADED: u32 = 9;
    pub(crate) const TIMEOUT: u32 = 10;
    pub(crate) const IRQ_ISSUE: u32 = 11;
    pub(crate) const ARGUMENT_VERSION_MISMATCH: u32 = 25;
    pub(crate) const LIBRARY_MISMATCH: u32 = 18;
    pub(crate) const GPU_IS_LOST: u32 = 15;
    pub(crate) const UNKNOWN: u32 = 999;
}

/// The machine and what of it can be opened, in NVML's order: by PCI address.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) machine: Machine,
    pub(crate) visible: Vec<Visible>,
    users: u32,
}

/// A GPU whose node opened.
#[derive(Debug)]
pub(crate) struct Visible {
    pub(crate) gpu: Gpu,
    /// MIG devices whose nodes opened.
    pub(crate) parts: Vec<Part>,
}

/// A MIG device.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) instance: GpuInstance,
    pub(crate) compute: ComputeInstance,
}

impl Visible {
    pub(crate) fn is_lost(&self) -> bool {
        self.gpu.fault == Some(GpuFault::Lost)
    }
}

static SESSION: Mutex<Option<Session>> = Mutex::new(None);

/// Opens the control node, then every GPU's; a GPU whose node is absent or denied is not there.
pub(crate) fn init() -> u32 {
    let Ok(mut session) = SESSION.lock() else {
        return code::UNKNOWN;
    };
    if let Some(session) = session.as_mut() {
        session.users += 1;
        return code::SUCCESS;
    }
    match Session::open() {
        Ok(opened) => {
            *session = Some(opened);
            code::SUCCESS
        }
        Err(code) => code,
    }
}

impl Session {
    fn open() -> Result<Self, u32> {
        let machine = place::machine().ok_or(code::DRIVER_NOT_LOADED)?;
        let nodes = Nodes::find();
        let control = match machine.platform {
            Platform::Wsl => "dxg",
            _ => "nvidiactl",
        };
        nodes.open(control).map_err(|err| refusal(&err))?;
        if let Some(code) = machine.init_error {
            return Err(code);
        }
        let mut gpus = machine.gpus.clone();
        gpus.sort_by(|a, b| a.bus_id.cmp(&b.bus_id));
        let behind_one_node = machine.platform == Platform::Wsl;
        let visible = gpus
            .into_iter()
            .filter(|gpu| behind_one_node || nodes.open(&gpu.node.name).is_ok())
            .map(|gpu| Visible {
                parts: parts(&gpu, &nodes),
                gpu,
            })
            .collect();
        Ok(Self {
            machine,
            visible,
            users: 1,
        })
    }
}

fn refusal(err: &io::Error) -> u32 {
    match err.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => code::NO_PERMISSION,
        _ => code::DRIVER_NOT_LOADED,
    }
}

fn parts(gpu: &Gpu, nodes: &Nodes) -> Vec<Part> {
    let mut out = Vec::new();
    for instance in gpu.mig.iter().flatten() {
        for compute in &instance.compute {
            let open = |name: &str| nodes.open(name).is_ok();
            if open(&instance.node.name) && open(&compute.node.name) {
                out.push(Part {
                    instance: instance.clone(),
                    compute: compute.clone(),
                });
            }
        }
    }
    out
}

pub(crate) fn shutdown() -> u32 {
    let Ok(mut session) = SESSION.lock() else {
        return code::UNKNOWN;
    };
    match session.as_mut() {
        None => return code::UNINITIALIZED,
        Some(open) if open.users > 1 => open.users -= 1,
        Some(_) => *session = None,
    }
    code::SUCCESS
}

/// Runs `f` on the session.
pub(crate) fn with<T>(f: impl FnOnce(&Session) -> Result<T, u32>) -> Result<T, u32> {
    let session = SESSION.lock().map_err(|_| code::UNKNOWN)?;
    f(session.as_ref().ok_or(code::UNINITIALIZED)?)
}

/// The library's version, which a program may ask for when nothing else works.
pub(crate) fn nvml_version() -> Result<String, u32> {
    let session = SESSION.lock().map_err(|_| code::UNKNOWN)?;
    let known = session
        .as_ref()
        .map(|session| session.machine.driver_version.clone());
    let version = known
        .or_else(|| place::machine().map(|machine| machine.driver_version))
        .ok_or(code::UNINITIALIZED)?;
    Ok(format!("12.{version}"))
}
