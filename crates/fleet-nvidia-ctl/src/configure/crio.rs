//! CRI-O: a handler in a drop-in of crio.conf (`man 5 crio.conf`).
//!
//! CRI-O parses every file of the directory, backups too, and a later table takes an earlier one's place as a whole.

use std::path::{Path, PathBuf};

use toml_edit::Item;

use super::chain::with_own;
use super::entries::{self, Entries};
use super::{Chain, ConfigureError, Plan, Remark, Site};
use crate::files::Files;
use crate::toml_file::{self, TomlFile};

const MAIN: &str = "/etc/crio/crio.conf";
const DIR: &str = "/etc/crio/crio.conf.d";
const DROP_IN: &str = "50-fleet-nvidia.conf";
const HEADER: &str =
    "# Written by `fleet-nvidia-ctl configure crio`; with --remove it goes again.\n";
/// CRI-O's own default would share crun's directory.
const STATE_ROOT: &str = "/run/fleet-nvidia";
/// Settings of the monitor: where CRI-O's packages keep conmon out of `PATH`, a handler without them has none.
const MONITOR: [&str; 3] = ["monitor_path", "monitor_cgroup", "monitor_env"];
const RUNTIMES: [&str; 3] = ["crio", "runtime", "runtimes"];
const DEFAULT: [&str; 3] = ["crio", "runtime", "default_runtime"];
const ENTRIES: Entries = Entries {
    table: &RUNTIMES,
    default: &DEFAULT,
    loss: "CRI-O does not start",
    check: check_own,
};

/// The files CRI-O reads, in order.
pub(crate) fn chain(files: &Files) -> Result<Chain, ConfigureError> {
    let own = Path::new(DIR).join(DROP_IN);
    let mut paths = vec![PathBuf::from(MAIN)];
    paths.extend(with_own(files.list_deep(Path::new(DIR))?, &own));
    Ok(Chain::read(files, &paths, &own)?)
}

pub(super) fn plan(site: &Site) -> Result<Plan, ConfigureError> {
    let chain = chain(&site.files)?;
    match site.remove {
        true => remove(site, &chain),
        false => add(site, &chain),
    }
}

fn handler(name: &str) -> [&str; 4] {
    [RUNTIMES[0], RUNTIMES[1], RUNTIMES[2], name]
}

fn add(site: &Site, chain: &Chain) -> Result<Plan, ConfigureError> {
    let (header, mut document) = ENTRIES.with(site, chain, HEADER)?;
    if let Some(table) = toml_file::table_mut(&mut document, &handler(&site.name)) {
        toml_file::set(table, "runtime_path", site.program.as_str());
        toml_file::set(table, "runtime_type", "oci");
        toml_file::set(table, "runtime_root", STATE_ROOT);
        for (key, value) in monitor(site, chain) {
            if !table.contains_key(key) {
                table.insert(key, value);
            }
        }
    }
    if site.default
        && let Some(runtime) = toml_file::table_mut(&mut document, &RUNTIMES[..2])
    {
        toml_file::set(runtime, DEFAULT[2], site.name.as_str());
    }
    let mut plan = Plan::new(false);
    plan.remarks.extend(remarks(site, chain));
    let text = format!("{header}{document}");
    plan.file(&site.files, &chain.own_path, Some(text))?;
    Ok(plan)
}

/// Handlers in our own file that run this runtime.
pub(super) fn names_of_ours(site: &Site) -> Result<Vec<String>, ConfigureError> {
    Ok(ENTRIES.names(site, &chain(&site.files)?))
}

/// The program that our own file gives the handler of this name.
pub(super) fn program(site: &Site) -> Result<Option<String>, ConfigureError> {
    let own = chain(&site.files)?.own;
    let path = [handler(&site.name).as_slice(), &["runtime_path"]].concat();
    Ok(own.and_then(|own| own.text(&path).map(str::to_owned)))
}

fn check_own(site: &Site, own: &TomlFile) -> Result<(), ConfigureError> {
    let keys = handler(&site.name);
    own.check_table(&keys)?;
    let path = [keys.as_slice(), &["runtime_path"]].concat();
    match (own.item(&path), own.text(&path)) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(own.bad(&path, "`runtime_path` is not a string").into()),
        // Written by us, whatever the binary was called then.
        (_, Some(program)) if site.is_ours(program) || own.raw().starts_with(HEADER) => Ok(()),
        (_, Some(program)) => Err(ConfigureError::Foreign {
            at: own.at(&path),
            what: format!("handler `{}`, which runs {program},", site.name),
        }),
    }
}

/// The monitor's settings of the default handler, as far as its binary exists.
fn monitor(site: &Site, chain: &Chain) -> Vec<(&'static str, Item)> {
    let default = chain.others().rev().find_map(|file| file.text(&DEFAULT));
    let candidates = default.into_iter().chain(["crun", "runc"]);
    let table = candidates
        .filter(|name| *name != site.name)
        .find_map(|name| {
            let keys = handler(name);
            chain.others().rev().find_map(|file| file.table(&keys))
        });
    let Some(table) = table else {
        return Vec::new();
    };
    let path = table.get(MONITOR[0]).and_then(Item::as_str);
    if path.is_some_and(|path| !path.is_empty() && !site.files.is_program(Path::new(path))) {
        return Vec::new();
    }
    let set = MONITOR.iter().filter_map(|key| {
        let value = table.get(key)?.as_value()?.clone();
        Some((*key, Item::Value(value.decorated(" ", ""))))
    });
    set.collect()
}

fn remarks(site: &Site, chain: &Chain) -> Vec<Remark> {
    let keys = handler(&site.name);
    let mut remarks = Vec::new();
    for (file, later) in chain
        .before
        .iter()
        .map(|file| (file, false))
        .chain(chain.after.iter().map(|file| (file, true)))
    {
        let program = file
            .text(&[keys.as_slice(), &["runtime_path"]].concat())
            .unwrap_or("a program of that name");
        match (file.item(&keys).is_some(), later) {
            (true, true) => remarks.push(Remark::NoEffect(format!(
                "{} defines handler `{}` as well ({program}) and is read later, so it stays in force; hint: remove that file, or choose another `--name`",
                file.at(&keys),
                site.name
            ))),
            (true, false) => remarks.push(Remark::Note(format!(
                "{} defines handler `{}` as well ({program}); this one takes its place",
                file.at(&keys),
                site.name
            ))),
            _ => {}
        }
        if later
            && site.default
            && let Some(other) = file.text(&DEFAULT)
            && other != site.name
        {
            remarks.push(Remark::NoEffect(format!(
                "{} is read later and keeps `{other}` as the default runtime",
                file.at(&DEFAULT)
            )));
        }
        remarks.extend(fatal_monitor(site, file));
    }
    remarks.extend(backups(chain));
    remarks
}

/// A monitor that is missing stops CRI-O, whichever handler names it.
fn fatal_monitor(site: &Site, file: &TomlFile) -> Vec<Remark> {
    let Some(all) = file.table(&RUNTIMES) else {
        return Vec::new();
    };
    let faulty = all.iter().filter_map(|(name, item)| {
        let path = item.as_table_like()?.get(MONITOR[0])?.as_str()?;
        let missing = !path.is_empty() && !site.files.is_program(Path::new(path));
        missing.then(|| {
            let keys = [handler(name).as_slice(), &[MONITOR[0]]].concat();
            Remark::Note(format!(
                "{} names a monitor that is missing, {path}: CRI-O does not start with it",
                file.at(&keys)
            ))
        })
    });
    faulty.collect()
}

/// Files that were never meant to be read.
pub(crate) fn backups(chain: &Chain) -> Vec<Remark> {
    let left = chain.others().filter(|file| {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let suffixes = [
            ".dpkg-dist",
            ".dpkg-old",
            ".dpkg-new",
            ".rpmnew",
            ".rpmsave",
            ".bak",
            ".orig",
            "~",
        ];
        suffixes.iter().any(|suffix| name.ends_with(suffix))
    });
    let remarks = left.map(|file| {
        Remark::Note(format!(
            "{} looks like a backup, but CRI-O reads it; hint: remove it",
            file.path.display()
        ))
    });
    remarks.collect()
}

fn remove(site: &Site, chain: &Chain) -> Result<Plan, ConfigureError> {
    let mut plan = Plan::new(true);
    let rest = ENTRIES.without(site, chain)?;
    let rest = rest.and_then(|(_, document)| entries::rest(&document));
    plan.file(&site.files, &chain.own_path, rest)?;
    Ok(plan)
}
