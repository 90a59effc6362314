//! What is visible between `nvmlInit` and `nvmlShutdown`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use crate::machine::{Gpu, Machine};

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
    pub(crate) const UNKNOWN: u32 = 999;
}

/// The machine and the GPUs whose nodes opened, in order of their minor numbers.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) machine: Machine,
    pub(crate) visible: Vec<Gpu>,
    users: u32,
}

static SESSION: Mutex<Option<Session>> = Mutex::new(None);

fn dev() -> String {
    std::env::var("FLEET_SIM_DEV").unwrap_or_else(|_| "/dev".to_owned())
}

fn open(node: &str) -> std::io::Result<()> {
    let path = format!("{}/{node}", dev());
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)
        .map(drop)
}

/// Opens the control node, then every GPU's; a GPU whose node is absent or denied is not there.
pub(crate) fn init() -> u32 {
    let Ok(mut session) = SESSION.lock() else {
        return code::UNKNOWN;
    };
    if let Some(session) = session.as_mut() {
        session.users += 1;
        return code::SUCCESS;
    }
    let Some(machine) = Machine::load() else {
        return code::DRIVER_NOT_LOADED;
    };
    match open("nvidiactl") {
        Ok(()) => {}
        Err(err) if matches!(err.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
            return code::NO_PERMISSION;
        }
        Err(_) => return code::DRIVER_NOT_LOADED,
    }
    let mut visible: Vec<Gpu> = machine
        .gpus
        .iter()
        .filter(|gpu| open(&format!("nvidia{}", gpu.minor)).is_ok())
        .cloned()
        .collect();
    visible.sort_by_key(|gpu| gpu.minor);
    *session = Some(Session {
        machine,
        visible,
        users: 1,
    });
    code::SUCCESS
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
