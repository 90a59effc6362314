//! Devices beside GPUs: storage, InfiniBand, GDRCopy, NVLink switches.

use fleet_host::files::file_at;

use super::{device_of, nothing};
use crate::Found;
use crate::edits::add_files;
use crate::error::DiscoverError;
use crate::machine::Machine;
use crate::options::{Mode, Options};

fn nodes(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Gds => &["/dev/nvidia-fs*"],
        Mode::Mofed => &["/dev/infiniband/uverbs*", "/dev/infiniband/rdma_cm"],
        Mode::Nvswitch => &["/dev/nvidia-nvswitch*"],
        _ => &["/dev/gdrdrv"],
    }
}

pub(super) fn find(
    mode: Mode,
    machine: &Machine,
    options: &Options,
) -> Result<Found, DiscoverError> {
    let patterns = nodes(mode);
    let mut device = device_of(machine, patterns, options).ok_or_else(|| {
        let paths: Vec<_> = patterns.iter().map(|path| machine.dev.host(path)).collect();
        nothing(mode, format!("there is no {}", paths.join(" or ")), None)
    })?;
    if mode == Mode::Gds {
        let udev = Some("/run/udev").filter(|path| machine.driver.is_dir(path));
        let cufile = Some("/etc/cufile.json").filter(|path| machine.driver.is_file(path));
        let files: Vec<_> = [udev, cufile]
            .into_iter()
            .flatten()
            .filter_map(|path| file_at(&machine.driver, path))
            .collect();
        add_files(&mut device.container_edits, files.iter());
    }
    Ok(Found {
        devices: vec![device],
        ..Found::default()
    })
}
