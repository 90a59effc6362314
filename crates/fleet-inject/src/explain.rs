//! A plan for people and for programs: the same edits that [`Plan::apply`] carries out.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::plan::{Change, DeviceEdit, Edit, HookEdit, LeftOut, MountEdit, Origin, Plan, Stage};
use crate::request::Refusal;
use crate::spec;

/// Version of the JSON form. It grows when a field changes its meaning or goes, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// A plan and what was not granted.
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a> {
    /// The edits.
    pub plan: &'a Plan,
    /// Requests that the policy refuses.
    pub refused: &'a [Refusal],
    /// What a user should know, one sentence each.
    pub warnings: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    schema_version: u32,
    edits: &'a [Edit],
    left_out: &'a [LeftOut],
    refused: &'a [Refusal],
    warnings: &'a [String],
}

impl Explanation<'_> {
    /// The JSON form as bytes, to be kept with a container.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        // Maps with other keys than texts, which alone could fail, are not in it.
        serde_json::to_vec(&self.document()).unwrap_or_default()
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::to_value(self.document())
            .unwrap_or_else(|err| json!({ "error": err.to_string() }))
    }

    fn document(&self) -> Document<'_> {
        let Self {
            plan,
            refused,
            warnings,
        } = *self;
        Document {
            schema_version: SCHEMA_VERSION,
            edits: &plan.edits,
            left_out: &plan.left_out,
            refused,
            warnings,
        }
    }

    /// One line per edit in aligned columns: what, where, from which CDI spec and device, asked for by whom. What the
    /// container's driver capabilities leave out follows in the same form.
    #[must_use]
    pub fn text(&self) -> String {
        let edits = self.plan.edits.iter().map(row);
        let rows: Vec<[String; 4]> = edits.chain(self.plan.left_out.iter().map(absent)).collect();
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2)];
        let mut text = String::new();
        for row in &rows {
            for (cell, width) in row.iter().zip(widths) {
                // Writing to a string cannot fail.
                let _ = write!(text, "{cell:width$}  ");
            }
            text.push_str(&row[3]);
            text.push('\n');
        }
        if self.plan.edits.is_empty() {
            text.push_str("nothing is injected\n");
        }
        self.refused
            .iter()
            .for_each(|refusal| text.push_str(&format!("refused: {refusal}\n")));
        self.warnings
            .iter()
            .for_each(|warning| text.push_str(&format!("warning: {warning}\n")));
        text
    }
}

fn row(edit: &Edit) -> [String; 4] {
    let (what, which) = describe(&edit.change);
    [
        what.to_owned(),
        which,
        place(&edit.origin),
        edit.origin.source.to_string(),
    ]
}

/// What is not given stands below what is, with the capabilities that would bring it.
fn absent(left_out: &LeftOut) -> [String; 4] {
    let LeftOut {
        what,
        which,
        needs,
        because,
        origin,
    } = left_out;
    [
        "left out".to_owned(),
        format!("{what} {which} ({needs})"),
        place(origin),
        because.clone(),
    ]
}

fn place(origin: &Origin) -> String {
    match (&origin.spec_file, &origin.device) {
        (Some(file), Some(device)) => format!("{} {device}", file.display()),
        (Some(file), None) => file.display().to_string(),
        (None, Some(device)) => format!("host {device}"),
        (None, None) => "OCI spec".to_owned(),
    }
}

fn describe(change: &Change) -> (&'static str, String) {
    match change {
        Change::Env { name, value } => ("env", format!("{name}={value}")),
        Change::Device(device) => ("device", node(device)),
        Change::Mount(edit) => ("mount", mount(edit)),
        Change::Hook { stage, hook } => {
            let HookEdit { path, timeout, .. } = hook;
            ("hook", format!("{stage} {path} (at most {timeout} s)"))
        }
        Change::Rootfs(edit) => ("rootfs", rootfs(edit)),
        Change::NetDevice {
            host_interface_name,
            name,
        } => ("net", format!("{name} from {host_interface_name}")),
        Change::IntelRdt { rdt } => ("rdt", rdt.to_string()),
        Change::AdditionalGid { gid } => ("group", gid.to_string()),
        Change::RemoveHook { stage, hook } => ("remove", removed(*stage, hook)),
    }
}

fn node(device: &DeviceEdit) -> String {
    let DeviceEdit {
        path,
        kind,
        major,
        minor,
        ..
    } = device;
    let from = from(&device.host_path, path);
    let access = device.access.as_deref().unwrap_or("no rule");
    format!("{path}{from} {kind} {major}:{minor} {access}")
}

fn mount(edit: &MountEdit) -> String {
    let from = from(&edit.host_path, &edit.container_path);
    let text = format!("{}{from} {}", edit.container_path, edit.options.join(","));
    text.trim_end().to_owned()
}

/// The program and its first argument, by which NVIDIA's hooks differ.
fn removed(stage: Stage, hook: &Value) -> String {
    let name = hook
        .pointer("/args/1")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let text = format!("{stage} {} {name}", spec::text(hook, "path"));
    text.trim_end().to_owned()
}

fn from(host: &str, container: &str) -> String {
    if host == container {
        String::new()
    } else {
        format!(" from {host}")
    }
}

/// `update-ld-cache folders=["/usr/lib64"]`: the JSON form on one line, so that no edit is left without words.
fn rootfs(edit: &fleet_rootfs::RootfsEdit) -> String {
    let Ok(Value::Object(mut members)) = serde_json::to_value(edit) else {
        return format!("{edit:?}");
    };
    let name = members.shift_remove("edit").unwrap_or_default();
    let given = members.iter().filter(|(_, value)| !value.is_null());
    let members = given.map(|(key, value)| match value.as_str() {
        Some(text) => format!(" {key}={text}"),
        None => format!(" {key}={value}"),
    });
    name.as_str().unwrap_or_default().to_owned() + &members.collect::<String>()
}
