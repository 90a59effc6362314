//! Podman and Buildah: a drop-in of containers.conf (`man 5 containers.conf`).
//!
//! A list replaces the one of an earlier file, and the form that appends stops every command of Podman 4.3, so the
//! list in force before ours is repeated.

use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, TableLike, Value};

use super::chain::with_own;
use super::entries::{self, Entries};
use super::{Chain, ConfigureError, Plan, Remark, Site};
use crate::files::Files;
use crate::toml_file::{self, BadFile, TomlFile};

/// File name of our drop-in.
const DROP_IN: &str = "50-fleet-nvidia.conf";
const HEADER: &str = "# Written by `fleet-nvidia-ctl configure podman`; with --remove it goes again.\n# A list takes the place of an earlier file's, so what was in force is repeated here.\n";
/// The lists that matter, with what Podman has built in (containers-common 0.50 to 0.67). The second one's name is as
/// the parser spells it; the manual adds an `s`.
const LISTS: [(&str, &[&str]); 2] = [
    (
        "runtime_supports_json",
        &[
            "crun", "crun-vm", "runc", "kata", "runsc", "youki", "krun", "ocijail",
        ],
    ),
    ("runtime_supports_nocgroup", &["crun", "crun-vm", "krun"]),
];
const ENTRIES: Entries = Entries {
    table: &["engine", "runtimes"],
    default: &["engine", "runtime"],
    loss: "every podman command fails",
    check: check_own,
};

/// The files Podman reads, in order; ours are in the last directory.
pub(crate) fn chain(files: &Files, user: Option<&Path>) -> Result<Chain, ConfigureError> {
    let mut paths = Vec::new();
    let mut own = PathBuf::new();
    let system = ["/usr/share/containers", "/etc/containers"].map(PathBuf::from);
    for dir in system
        .into_iter()
        .chain(user.map(|home| home.join("containers")))
    {
        paths.push(dir.join("containers.conf"));
        let drop_ins = dir.join("containers.conf.d");
        own = drop_ins.join(DROP_IN);
        let mut listed = files.list(&drop_ins)?;
        listed.retain(|path| path.extension().is_some_and(|ext| ext == "conf"));
        paths.extend(listed);
    }
    let last = paths
        .iter()
        .rposition(|path| path.parent() != own.parent())
        .map_or(0, |at| at + 1);
    let drop_ins = with_own(paths.split_off(last), &own);
    paths.extend(drop_ins);
    Ok(Chain::read(files, &paths, &own)?)
}

pub(super) fn plan(site: &Site) -> Result<Plan, ConfigureError> {
    let chain = chain(&site.files, site.user.as_deref())?;
    match site.remove {
        true => remove(site, &chain),
        false => add(site, &chain),
    }
}

fn add(site: &Site, chain: &Chain) -> Result<Plan, ConfigureError> {
    let (header, mut document) = ENTRIES.with(site, chain, HEADER)?;
    write_entry(site, chain, &mut document)?;
    let mut plan = Plan::new(false);
    plan.remarks.extend(later(site, chain));
    let text = format!("{header}{document}");
    plan.file(&site.files, &chain.own_path, Some(text))?;
    Ok(plan)
}

/// Names in our own file that lead to this runtime.
pub(super) fn names_of_ours(site: &Site) -> Result<Vec<String>, ConfigureError> {
    Ok(ENTRIES.names(site, &chain(&site.files, site.user.as_deref())?))
}

/// The program that our own file gives this name.
pub(super) fn program(site: &Site) -> Result<Option<String>, ConfigureError> {
    let own = chain(&site.files, site.user.as_deref())?.own;
    let keys = ["engine", "runtimes", site.name.as_str()];
    let Some(own) = own.filter(|own| own.item(&keys).is_some()) else {
        return Ok(None);
    };
    Ok(programs(&own, &keys)?.into_iter().next())
}

/// Our own file may be the package's or edited by hand; an entry of this name for another program is not ours.
fn check_own(site: &Site, own: &TomlFile) -> Result<(), ConfigureError> {
    let keys = ["engine", "runtimes", site.name.as_str()];
    own.check_table(&keys[..2])?;
    match own.item(&keys) {
        None => Ok(()),
        // Written by us, whatever the binary was called then.
        Some(_) if own.raw().starts_with(HEADER) => Ok(()),
        Some(_) => match programs(own, &keys)?.iter().find(|p| !site.is_ours(p)) {
            None => Ok(()),
            Some(program) => Err(ConfigureError::Foreign {
                at: own.at(&keys),
                what: format!("runtime `{}`, which is {program},", site.name),
            }),
        },
    }
}

/// The files that a runtime is looked for at.
fn programs(file: &TomlFile, keys: &[&str]) -> Result<Vec<String>, BadFile> {
    let texts = file
        .array(keys)
        .map(|array| array.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    match texts.flatten() {
        Some(texts) => Ok(texts.into_iter().map(str::to_owned).collect()),
        None => Err(file.bad(keys, format!("`{}` is not a list of files", keys.join(".")))),
    }
}

fn write_entry(
    site: &Site,
    chain: &Chain,
    document: &mut DocumentMut,
) -> Result<(), ConfigureError> {
    for (key, _) in LISTS {
        let mut list = in_force(&chain.before, key)?;
        let own = chain.own.iter();
        let stated = own.filter(|own| own.item(&["engine", key]).is_some());
        let stated = stated.map(|own| in_force(std::slice::from_ref(own), key));
        let stated = stated.collect::<Result<Vec<_>, _>>()?.concat();
        for name in stated.into_iter().chain(names(site)) {
            if !list.contains(&name) {
                list.push(name);
            }
        }
        if let Some(engine) = toml_file::table_mut(document, &["engine"]) {
            toml_file::set(engine, key, list.into_iter().collect::<Array>());
        }
    }
    if let Some(engine) = toml_file::table_mut(document, &["engine"])
        && site.default
    {
        toml_file::set(engine, "runtime", site.name.as_str());
    }
    if let Some(runtimes) = toml_file::table_mut(document, &["engine", "runtimes"]) {
        let program = Array::from_iter([site.program.as_str()]);
        toml_file::set(runtimes, &site.name, program);
    }
    Ok(())
}

/// Podman compares the base name of what it was given: a name, or a path.
fn names(site: &Site) -> Vec<String> {
    let mut names = vec![site.name.clone(), base(&site.program)];
    names.dedup();
    names
}

fn base(program: &str) -> String {
    program.rsplit('/').next().unwrap_or_default().to_owned()
}

/// A list as these files leave it.
pub(crate) fn in_force(files: &[TomlFile], key: &str) -> Result<Vec<String>, BadFile> {
    let built_in = LISTS.iter().find(|(name, _)| *name == key);
    let built_in = built_in.map_or(&[][..], |(_, names)| names);
    let mut list: Vec<String> = built_in.iter().map(|name| (*name).to_owned()).collect();
    for file in files {
        let keys = ["engine", key];
        let Some(item) = file.item(&keys) else {
            continue;
        };
        let wrong = || file.bad(&keys, format!("`engine.{key}` is not a list of names"));
        let (mut names, mut append) = (Vec::new(), false);
        for value in item.as_array().ok_or_else(wrong)? {
            match value {
                Value::String(name) => names.push(name.value().clone()),
                // `{append = true}`, since containers-common 0.57.
                Value::InlineTable(flags) => {
                    append |= flags.get("append").and_then(Value::as_bool) == Some(true);
                }
                _ => return Err(wrong()),
            }
        }
        if !append {
            list.clear();
        }
        list.extend(names);
    }
    Ok(list)
}

/// Files that are read after ours and take something back.
fn later(site: &Site, chain: &Chain) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let keys = ["engine", "runtimes", site.name.as_str()];
    for file in &chain.after {
        let ours = programs(file, &keys).is_ok_and(|all| all.iter().any(|p| site.is_ours(p)));
        if file.item(&keys).is_some() && !ours {
            remarks.push(Remark::NoEffect(format!(
                "{} is read later and gives `{}` another program; hint: remove it there, or choose another `--name`",
                file.at(&keys),
                site.name
            )));
        }
        for (key, _) in LISTS {
            let list = in_force(std::slice::from_ref(file), key).unwrap_or_default();
            if file.item(&["engine", key]).is_some() && !list.contains(&site.name) {
                remarks.push(Remark::Note(format!(
                    "{} is read later and sets `{key}` without `{}`: Podman then shows shorter errors or refuses `--cgroups=disabled`; hint: add the name there",
                    file.at(&["engine", key]),
                    site.name
                )));
            }
        }
        if let Some(other) = file.text(&["engine", "runtime"])
            && site.default
            && other != site.name
        {
            remarks.push(Remark::NoEffect(format!(
                "{} is read later and keeps `{other}` as the default runtime",
                file.at(&["engine", "runtime"])
            )));
        }
    }
    remarks
}

fn remove(site: &Site, chain: &Chain) -> Result<Plan, ConfigureError> {
    let mut plan = Plan::new(true);
    let rest = match ENTRIES.without(site, chain)? {
        None => None,
        Some((own, mut document)) => {
            take_from_lists(site, chain, own, &mut document)?;
            entries::rest(&document)
        }
    };
    plan.file(&site.files, &chain.own_path, rest)?;
    Ok(plan)
}

/// A list loses the name. One that then only repeats what is in force without our file goes with the last runtime.
fn take_from_lists(
    site: &Site,
    chain: &Chain,
    own: &TomlFile,
    document: &mut DocumentMut,
) -> Result<(), ConfigureError> {
    let runtimes = toml_file::table(document, &["engine", "runtimes"]);
    let last = runtimes.is_none_or(TableLike::is_empty);
    let binaries = programs(own, &["engine", "runtimes", &site.name]).unwrap_or_default();
    let binaries: Vec<_> = binaries.iter().map(|path| base(path)).collect();
    let is_ours = |name: &String| match last {
        true => names(site).contains(name) || binaries.contains(name) || name == super::BINARY,
        false => *name == site.name && name != super::BINARY,
    };
    for (key, _) in LISTS {
        if own.item(&["engine", key]).is_none() {
            continue;
        }
        let mut list = in_force(std::slice::from_ref(own), key)?;
        list.retain(|name| !is_ours(name));
        if last && list == in_force(&chain.before, key)? {
            toml_file::remove(document, &["engine", key]);
        } else if let Some(engine) = toml_file::table_mut(document, &["engine"]) {
            toml_file::set(engine, key, list.into_iter().collect::<Array>());
        }
    }
    Ok(())
}
