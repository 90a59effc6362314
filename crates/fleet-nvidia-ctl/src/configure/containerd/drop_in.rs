//! Our own file: the CRI section in force, with our handlers added.

use toml_edit::{DocumentMut, Item, Table, TableLike};

use super::{Config, ConfigureError, HEADER, Site, section};
use crate::toml_file;

const COPIED: &str = "# Holds a copy of the CRI section in force, which an imported file must repeat as a whole: after a change of the\n# main file, run it again.\n";

/// Our handlers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handlers {
    /// Name and binary.
    programs: Vec<(String, String)>,
    /// Which of them is the default.
    default: Option<String>,
}

impl Handlers {
    /// Those that our own file adds to the section in force.
    pub(crate) fn of(config: &Config) -> Self {
        let keys = config.handler("");
        let own = config.chain.own.as_ref();
        let all = own.and_then(|own| own.table(&keys[..4])).into_iter();
        let copied = |name: &str| {
            let base = config.base().and_then(|base| base.table(&keys[..4]));
            base.is_some_and(|base| base.contains_key(name))
        };
        let programs: Vec<_> = all
            .flat_map(|all| all.iter())
            .filter(|(name, _)| !copied(name))
            .filter_map(|(name, item)| {
                let options = item.as_table_like()?.get("options")?;
                let binary = options.as_table_like()?.get("BinaryName")?.as_str()?;
                Some((name.to_owned(), binary.to_owned()))
            })
            .collect();
        let default = [&keys[..3], &["default_runtime_name"]].concat();
        let default = own.and_then(|own| own.text(&default));
        let default = default.filter(|name| programs.iter().any(|(known, _)| known == name));
        Self {
            default: default.map(str::to_owned),
            programs,
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.programs.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn program(&self, name: &str) -> Option<String> {
        let mut all = self.programs.iter();
        let found = all.find(|(known, _)| known == name);
        found.map(|(_, program)| program.clone())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// Adds one, or gives it another binary.
    pub(super) fn set(&mut self, site: &Site) {
        let known = self
            .programs
            .iter_mut()
            .find(|(name, _)| *name == site.name);
        match known {
            Some((_, program)) => program.clone_from(&site.program),
            None => self
                .programs
                .push((site.name.clone(), site.program.clone())),
        }
        if site.default {
            self.default = Some(site.name.clone());
        }
    }

    /// Takes one away.
    pub(super) fn take(&mut self, name: &str) {
        self.programs.retain(|(known, _)| known != name);
        self.default.take_if(|default| default == name);
    }

    /// The text of our own file.
    pub(crate) fn drop_in(&self, config: &Config) -> Result<String, ConfigureError> {
        let keys = section(config.version);
        let mut document = DocumentMut::new();
        if config.version > 1 {
            document.insert("version", Item::Value(config.version.into()));
        }
        let copied = match config.base() {
            Some(file) => {
                file.check_table(&[keys[0], keys[1], "containerd", "runtimes"])?;
                file.table(&keys)
            }
            None => None,
        };
        if let (Some(from), Some(to)) = (copied, toml_file::table_mut(&mut document, &keys)) {
            copy(from, to);
        }
        for (name, program) in &self.programs {
            add(config, name, program, copied, &mut document);
        }
        if let Some(default) = &self.default
            && let Some(table) = toml_file::table_mut(&mut document, &config.handler("")[..3])
        {
            toml_file::set(table, "default_runtime_name", default.as_str());
        }
        keep_runc(config, &mut document);
        let note = if copied.is_some() { COPIED } else { "" };
        Ok(format!("{HEADER}{note}{document}"))
    }
}

/// Up to containerd 1.7 a table of handlers takes the place of the built-in one, and without the default handler, `runc`,
/// the plug-in is not loaded: no pod would start.
fn keep_runc(config: &Config, document: &mut DocumentMut) {
    let keys = config.handler("runc");
    let named = config.base().and_then(|base| {
        let default = [&keys[..3], &["default_runtime_name"]].concat();
        base.text(&default).map(str::to_owned)
    });
    let listed = config
        .base()
        .is_some_and(|base| base.table(&keys[..4]).is_some());
    let wanted = named.as_deref().unwrap_or("runc") == "runc" || !listed;
    if let Some(all) = toml_file::table_mut(document, &keys[..4])
        && (all.contains_key("runc") || !wanted)
    {
        return;
    }
    if let Some(table) = toml_file::table_mut(document, &keys) {
        toml_file::set(table, "runtime_type", "io.containerd.runc.v2");
    }
}

/// A handler: the default one's settings, such as the cgroup driver, with another binary.
fn add(
    config: &Config,
    name: &str,
    program: &str,
    cri: Option<&dyn TableLike>,
    document: &mut DocumentMut,
) {
    let keys = config.handler(name);
    if let Some(table) = toml_file::table_mut(document, &keys) {
        if let Some(from) = cri.and_then(|cri| model(cri, name)) {
            copy(from, table);
        }
        toml_file::set(table, "runtime_type", "io.containerd.runc.v2");
    }
    let options = [keys.as_slice(), &["options"]].concat();
    if let Some(table) = toml_file::table_mut(document, &options) {
        toml_file::set(table, "BinaryName", program);
    }
}

/// The handler whose settings are ours as well: the default one if runc's shim serves it, else `runc`.
fn model<'t>(cri: &'t dyn TableLike, name: &str) -> Option<&'t dyn TableLike> {
    let containerd = cri.get("containerd")?.as_table_like()?;
    let runtimes = containerd.get("runtimes")?.as_table_like()?;
    let default = containerd
        .get("default_runtime_name")
        .and_then(Item::as_str);
    default
        .into_iter()
        .chain(["runc", "crun"])
        .filter(|candidate| *candidate != name)
        .find_map(|candidate| {
            let table = runtimes.get(candidate)?.as_table_like()?;
            let kind = table.get("runtime_type").and_then(Item::as_str);
            (kind == Some("io.containerd.runc.v2")).then_some(table)
        })
}

/// Copies keys and tables without their comments and places.
fn copy(from: &dyn TableLike, to: &mut dyn TableLike) {
    for (key, item) in from.iter() {
        let copied = match item {
            Item::Value(value) => Item::Value(value.clone().decorated(" ", "")),
            Item::Table(table) => {
                let mut new = Table::new();
                new.set_implicit(table.is_implicit());
                copy(table, &mut new);
                Item::Table(new)
            }
            other => other.clone(),
        };
        to.insert(key, copied);
    }
}
