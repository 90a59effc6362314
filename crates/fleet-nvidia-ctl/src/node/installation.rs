//! Install, uninstall and rollback, step by step.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::args::{Install, Restart};
use super::engines::{self, Entries, Entry};
use super::place::{self, Place};
use super::reload;
use super::status::Status;
use super::users::Users;
use super::versions::{CURRENT, Versions};
use super::{At, NodeError};
use crate::CtlError;
use crate::cli::Cli;
use crate::configure::Engine;
use crate::files::Files;

/// What the last install has wanted.
const INSTALLED: &str = "installed.json";
/// Starts the name of a note that an engine has yet to read its configuration again.
const OUTSTANDING: &str = "outstanding-";

/// What is to be installed.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    args: &'a Install,
    files: Files,
    source: PathBuf,
}

/// An installation that is there.
#[derive(Clone, Debug)]
pub(super) struct Installation {
    place: Place,
    versions: Versions,
    record: Record,
    entries: Entries,
}

/// `installed.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    /// Who wrote it: differs from install to install.
    by: String,
    default: bool,
    entries: Vec<Entry>,
    /// The health file, and the directories made for it.
    health: Option<(PathBuf, Vec<PathBuf>)>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(cli: &Cli, args: &'a Install) -> Result<Self, NodeError> {
        let own = Path::new("/proc/self/exe");
        let source = match &args.source {
            Some(source) => source.clone(),
            None => std::fs::read_link(own)
                .at("read", own)?
                .parent()
                .map(Path::to_path_buf)
                .unwrap_or_default(),
        };
        Ok(Self {
            args,
            files: args.at.files(cli),
            source,
        })
    }

    pub(super) fn install(
        &self,
        out: &mut dyn Write,
        remarks: &mut dyn Write,
    ) -> Result<Installation, CtlError> {
        let _lock = place::lock(&self.files)?;
        let given = self.args.at.install_dir.as_deref();
        let place = Place::choose(&self.files, given)?;
        let mut new = Installation::at(place);
        let old = new.record.clone();
        new.entries.default = self.args.set_as_default;
        let engines = engines::choose(&self.files, &self.args.runtime)?;
        let name = |engine: Engine| {
            self.args
                .runtime_name
                .clone()
                .unwrap_or_else(|| engine.default_name().to_owned())
        };
        let wanted: Vec<_> = engines
            .into_iter()
            .map(|engine| Entry {
                engine,
                name: name(engine),
            })
            .collect();
        // All that can be refused is refused before anything is written.
        for entry in &wanted {
            new.entries.plan(entry)?;
        }
        new.place.claim()?;
        let version = new.versions.add(&self.source)?;
        let before = new.versions.current();
        new.versions.switch(&version)?;
        new.versions.prune()?;
        match before {
            Some(before) if before == version => writeln!(out, "{version} is in force already")?,
            Some(before) => writeln!(
                out,
                "installed {version} in {}, before it {before}",
                new.place.path.display()
            )?,
            None => writeln!(out, "installed {version} in {}", new.place.path.display())?,
        }
        new.record = Record {
            by: nonce(),
            default: self.args.set_as_default,
            entries: wanted,
            health: self.health(&old),
        };
        new.write_record()?;
        new.silence_other(&old)?;
        new.configure(self.args.restart, out, remarks)?;
        Ok(new)
    }

    /// The health file with the directories that are made for it: by this install, or by an earlier one.
    fn health(&self, old: &Record) -> Option<(PathBuf, Vec<PathBuf>)> {
        let path = self.args.health.clone()?;
        match &old.health {
            Some((known, made)) if *known == path => Some((path, made.clone())),
            _ => {
                let made = self.files.missing_above(&path);
                Some((path, made))
            }
        }
    }
}

impl Installation {
    fn at(place: Place) -> Self {
        let program = place.path.join(CURRENT).join("fleet-nvidia");
        let record = Record::read(&place).unwrap_or_default();
        Self {
            versions: Versions::new(&place.real),
            entries: Entries {
                files: place.files.clone(),
                program: program.display().to_string(),
                default: record.default,
            },
            record,
            place,
        }
    }

    /// The installation of the node.
    pub(super) fn find(files: &Files, given: Option<&Path>) -> Result<Option<Self>, NodeError> {
        Ok(Place::find(files, given)?.map(Self::at))
    }

    pub(super) fn files(&self) -> &Files {
        &self.place.files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path.join(name)
    }

    fn write_record(&self) -> Result<(), NodeError> {
        Ok(self
            .files()
            .replace(&self.path(INSTALLED), &self.record.text())?)
    }

    /// Whether no other install came after this one.
    pub(super) fn is_current(&self) -> bool {
        Record::read(&self.place).as_ref() == Some(&self.record)
    }

    /// Entries with our program: all that are there. An engine that nobody has asked us about may be in disorder.
    fn present(&self) -> Result<Vec<Entry>, NodeError> {
        let mut present = Vec::new();
        for engine in Engine::ALL {
            match self.entries.of(engine) {
                Ok(entries) => present.extend(entries),
                Err(err)
                    if self
                        .record
                        .entries
                        .iter()
                        .any(|entry| entry.engine == engine) =>
                {
                    return Err(err);
                }
                Err(_) => {}
            }
        }
        Ok(present)
    }

    /// Entries that are wanted come, others of ours go.
    fn configure(
        &self,
        restart: Restart,
        out: &mut dyn Write,
        remarks: &mut dyn Write,
    ) -> Result<(), CtlError> {
        for entry in self.present()? {
            if !self.record.entries.contains(&entry) {
                self.take_back(&entry, restart, out)?;
            }
        }
        for entry in &self.record.entries {
            let plan = self.entries.plan(entry)?;
            for remark in &plan.remarks {
                writeln!(remarks, "fleet-nvidia-ctl: {}", remark.text())?;
            }
            self.carry_out(entry, &plan, restart, out)?;
        }
        self.reload(restart, out)
    }

    fn take_back(
        &self,
        entry: &Entry,
        restart: Restart,
        out: &mut dyn Write,
    ) -> Result<(), CtlError> {
        let plan = self.entries.removal(entry)?;
        self.carry_out(entry, &plan, restart, out)
    }

    fn carry_out(
        &self,
        entry: &Entry,
        plan: &crate::configure::Plan,
        restart: Restart,
        out: &mut dyn Write,
    ) -> Result<(), CtlError> {
        let changes = plan.changes();
        if !changes.is_empty() && restart == Restart::Systemd {
            // Before the change: whoever is killed after it has not reloaded yet.
            let note = self.path(&format!("{OUTSTANDING}{}", entry.engine.word()));
            self.files().replace(&note, "").map_err(NodeError::from)?;
        }
        plan.carry_out(self.files())?;
        for change in &changes {
            writeln!(out, "{}", change.done())?;
        }
        if !changes.is_empty() && restart == Restart::None {
            writeln!(out, "{}", entry.engine.next_step(false, plan))?;
        }
        Ok(())
    }

    /// Engines whose configuration has changed, now or before a run was cut off.
    fn reload(&self, restart: Restart, out: &mut dyn Write) -> Result<(), CtlError> {
        for engine in Engine::ALL {
            let note = self.path(&format!("{OUTSTANDING}{}", engine.word()));
            if !self.files().exists(&note) {
                continue;
            }
            if restart == Restart::Systemd
                && let Some(done) = reload::reload(self.files(), engine)?
            {
                writeln!(out, "{done}")?;
            }
            self.files().remove(&note)?;
        }
        Ok(())
    }

    pub(super) fn rollback(&self) -> Result<(String, String), NodeError> {
        self.versions.exchange()
    }

    /// Takes everything away, unless containers need it. What this program itself runs in needs it, too, until it ends:
    /// the files of engines go, the programs stay.
    pub(super) fn uninstall(
        &self,
        restart: Restart,
        force: bool,
        out: &mut dyn Write,
        remarks: &mut dyn Write,
    ) -> Result<(), CtlError> {
        let users = Users::of(self.files());
        match (users.others.is_empty(), force) {
            (true, _) => {}
            (false, true) => writeln!(
                remarks,
                "fleet-nvidia-ctl: left without their runtime: {}",
                users.others.join(" ")
            )?,
            (false, false) => {
                return Err(NodeError::Asked(format!(
                    "containers still need the runtime: {}; hint: drain the node first, or `node uninstall --force`; nothing was removed",
                    users.others.join(" ")
                ))
                .into());
            }
        }
        for entry in self.present()? {
            self.take_back(&entry, restart, out)?;
        }
        // An entry that a killed run has left half made is not there, but what it was made of is.
        for entry in &self.record.entries {
            if self.entries.is_free(entry)? {
                self.entries.removal(entry)?.carry_out(self.files())?;
            }
        }
        self.silence()?;
        if users.own && !force {
            return self.leave_to_own(out);
        }
        self.reload(restart, out)?;
        self.versions.clear()?;
        self.files().remove(&self.path(INSTALLED))?;
        self.place.give_up()?;
        writeln!(out, "removed {}", self.place.path.display())?;
        Ok(())
    }

    /// An engine that has forgotten the runtime, or does not find it, can neither stop nor remove the container that
    /// this is said from.
    fn leave_to_own(&self, out: &mut dyn Write) -> Result<(), CtlError> {
        let rest = Self {
            record: Record {
                by: nonce(),
                ..Record::default()
            },
            ..self.clone()
        };
        rest.write_record()?;
        writeln!(
            out,
            "{} stays for now: this container itself is run from it; hint: once it is gone, restart the engine, and repeat `node uninstall` from elsewhere",
            self.place.path.display()
        )?;
        Ok(())
    }

    pub(super) fn status(&self) -> Status {
        let record = Record::read(&self.place);
        let mut problems = Vec::new();
        if record.is_none() {
            problems.push("the last install was cut off; hint: repeat it".to_owned());
        }
        for missing in self.versions.missing() {
            problems.push(format!(
                "{} is missing; hint: install again",
                self.path(CURRENT).join(missing).display()
            ));
        }
        for engine in Engine::ALL {
            let word = engine.word();
            if self
                .files()
                .exists(&self.path(&format!("{OUTSTANDING}{word}")))
            {
                problems.push(format!("{word} has not read its configuration yet; hint: install again with `--restart systemd`"));
            }
        }
        let entries = record.unwrap_or_default().entries.into_iter();
        Status {
            directory: self.place.path.display().to_string(),
            version: self.versions.current(),
            previous: self.versions.previous(),
            entries: entries
                .map(|entry| (entry.clone(), self.entries.problem(&entry)))
                .collect(),
            problems,
        }
    }

    /// Writes the health file, or takes it away.
    pub(super) fn tell(&self, status: &Status) -> Result<(), NodeError> {
        match &self.record.health {
            Some((path, _)) if status.is_healthy() => Ok(self
                .files()
                .replace(path, &format!("{}\n", status.json()))?),
            Some((path, made)) => Ok(self.files().remove_with(path, made)?),
            None => Ok(()),
        }
    }

    /// Takes the health file away.
    pub(super) fn silence(&self) -> Result<(), NodeError> {
        match &self.record.health {
            Some((path, made)) => Ok(self.files().remove_with(path, made)?),
            None => Ok(()),
        }
    }

    /// Takes away the health file of an earlier install, which had it elsewhere.
    fn silence_other(&self, old: &Record) -> Result<(), NodeError> {
        let own = self.record.health.as_ref().map(|(path, _)| path);
        match &old.health {
            Some((path, made)) if Some(path) != own => Ok(self.files().remove_with(path, made)?),
            _ => Ok(()),
        }
    }
}

impl Record {
    fn read(place: &Place) -> Option<Self> {
        let text = place.files.read(&place.path.join(INSTALLED)).ok()??;
        let value: Value = serde_json::from_str(&text).ok()?;
        let entry = |value: &Value| {
            Some(Entry {
                engine: engines::engine(value.get("engine")?.as_str()?)?,
                name: value.get("name")?.as_str()?.to_owned(),
            })
        };
        let paths = |value: &Value| {
            let all = value.as_array().into_iter().flatten();
            all.filter_map(Value::as_str).map(PathBuf::from).collect()
        };
        let health = value.get("health").and_then(|health| {
            Some((
                PathBuf::from(health.get("file")?.as_str()?),
                paths(health.get("made")?),
            ))
        });
        Some(Self {
            by: value.get("by")?.as_str()?.to_owned(),
            default: value.get("default").and_then(Value::as_bool) == Some(true),
            entries: value
                .get("engines")?
                .as_array()?
                .iter()
                .filter_map(entry)
                .collect(),
            health,
        })
    }

    fn text(&self) -> String {
        let entries = self
            .entries
            .iter()
            .map(|entry| json!({"engine": entry.engine.word(), "name": entry.name}));
        let health = self
            .health
            .as_ref()
            .map(|(file, made)| json!({"file": file, "made": made}));
        let value = json!({
            "schemaVersion": 1,
            "by": self.by,
            "default": self.default,
            "engines": entries.collect::<Vec<_>>(),
            "health": health,
        });
        format!("{value:#}\n")
    }
}

/// Differs between two installs, also of two containers.
fn nonce() -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}-{}", now.as_nanos(), std::process::id())
}
