//! From a tree to the model. Field names are exact but for their letter case (as Go's decoder), unknown ones refused.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::{ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec};
use crate::name::shown;

type Result<T> = std::result::Result<T, String>;

/// One object: its fields are taken out one by one; what is left is unknown.
struct Fields<'a> {
    path: String,
    left: Vec<(&'a str, &'a Value)>,
    /// YAML gives a string field a number where quotes are missing; the Go library turns it back.
    lenient: bool,
}

impl<'a> Fields<'a> {
    fn new(value: &'a Value, path: &str, lenient: bool) -> Result<Self> {
        let map: &Map<String, Value> = value
            .as_object()
            .ok_or_else(|| format!("{} is not an object", name_of(path)))?;
        Ok(Self {
            path: path.to_owned(),
            left: map
                .iter()
                .map(|(key, value)| (key.as_str(), value))
                .collect(),
            lenient,
        })
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn take(&mut self, key: &str) -> Option<&'a Value> {
        let at = self
            .left
            .iter()
            .position(|(name, _)| name.eq_ignore_ascii_case(key))?;
        let (_, value) = self.left.swap_remove(at);
        (!value.is_null()).then_some(value)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>> {
        let path = self.at(key);
        let lenient = self.lenient;
        self.take(key)
            .map(|value| text(value, &path, lenient))
            .transpose()
    }

    fn required(&mut self, key: &str) -> Result<String> {
        let path = self.at(key);
        self.text(key)?.ok_or_else(|| format!("{path} is missing"))
    }

    fn number<T: TryFrom<i64>>(&mut self, key: &str) -> Result<Option<T>> {
        let path = self.at(key);
        let number = |value: &Value| {
            value
                .as_i64()
                .and_then(|n| T::try_from(n).ok())
                .ok_or_else(|| format!("{path} is not a number in range"))
        };
        self.take(key).map(number).transpose()
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        let path = self.at(key);
        let flag = |value: &Value| match value {
            Value::Bool(flag) => Ok(*flag),
            // YAML 1.1 words for booleans.
            Value::String(word)
                if matches!(word.to_ascii_lowercase().as_str(), "yes" | "on" | "y") =>
            {
                Ok(true)
            }
            Value::String(word)
                if matches!(word.to_ascii_lowercase().as_str(), "no" | "off" | "n") =>
            {
                Ok(false)
            }
            _ => Err(format!("{path} is not a boolean")),
        };
        self.take(key).map(flag).transpose()
    }

    fn list<T>(
        &mut self,
        key: &str,
        decode: impl Fn(&'a Value, &str, bool) -> Result<T>,
    ) -> Result<Vec<T>> {
        let path = self.at(key);
        let lenient = self.lenient;
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => all
                .iter()
                .enumerate()
                .map(|(n, value)| decode(value, &format!("{path}[{n}]"), lenient))
                .collect(),
            Some(_) => Err(format!("{path} is not a list")),
        }
    }

    fn map(&mut self, key: &str) -> Result<BTreeMap<String, String>> {
        let path = self.at(key);
        let lenient = self.lenient;
        match self.take(key) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(all)) => all
                .iter()
                .map(|(name, value)| {
                    Ok((
                        name.clone(),
                        text(value, &format!("{path}.{name}"), lenient)?,
                    ))
                })
                .collect(),
            Some(_) => Err(format!("{path} is not an object")),
        }
    }

    fn done(self) -> Result<()> {
        match self.left.first() {
            Some((key, _)) => Err(format!(
                "unknown field \"{}\" in {}",
                shown(key),
                name_of(&self.path)
            )),
            None => Ok(()),
        }
    }
}

fn name_of(path: &str) -> &str {
    if path.is_empty() { "the spec" } else { path }
}

fn text(value: &Value, path: &str, lenient: bool) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if lenient => Ok(number.to_string()),
        Value::Bool(word) if lenient => Ok(word.to_string()),
        _ => Err(format!("{path} is not a string")),
    }
}

pub(crate) fn spec(value: &Value, lenient: bool) -> Result<Spec> {
    let mut fields = Fields::new(value, "", lenient)?;
    let spec = Spec {
        cdi_version: fields.required("cdiVersion")?,
        kind: fields.required("kind")?,
        annotations: fields.map("annotations")?,
        container_edits: optional_edits(&mut fields)?,
        devices: fields.list("devices", device)?,
    };
    fields.done()?;
    Ok(spec)
}

fn optional_edits(fields: &mut Fields<'_>) -> Result<ContainerEdits> {
    let path = fields.at("containerEdits");
    let lenient = fields.lenient;
    fields.take("containerEdits").map_or_else(
        || Ok(ContainerEdits::default()),
        |value| edits(value, &path, lenient),
    )
}

fn device(value: &Value, path: &str, lenient: bool) -> Result<Device> {
    let mut fields = Fields::new(value, path, lenient)?;
    let device = Device {
        name: fields.required("name")?,
        annotations: fields.map("annotations")?,
        container_edits: optional_edits(&mut fields)?,
    };
    fields.done()?;
    Ok(device)
}

fn edits(value: &Value, path: &str, lenient: bool) -> Result<ContainerEdits> {
    let mut fields = Fields::new(value, path, lenient)?;
    let rdt_path = fields.at("intelRdt");
    let edits = ContainerEdits {
        env: fields.list("env", text)?,
        device_nodes: fields.list("deviceNodes", device_node)?,
        net_devices: fields.list("netDevices", net_device)?,
        hooks: fields.list("hooks", hook)?,
        mounts: fields.list("mounts", mount)?,
        intel_rdt: fields
            .take("intelRdt")
            .map(|value| rdt(value, &rdt_path, lenient))
            .transpose()?,
        additional_gids: fields.list("additionalGids", |value, path, _| {
            value
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .ok_or_else(|| format!("{path} is not a group id"))
        })?,
    };
    fields.done()?;
    Ok(edits)
}

fn device_node(value: &Value, path: &str, lenient: bool) -> Result<DeviceNode> {
    let mut fields = Fields::new(value, path, lenient)?;
    let node = DeviceNode {
        path: fields.required("path")?,
        host_path: fields.text("hostPath")?,
        device_type: fields.text("type")?,
        major: fields.number("major")?,
        minor: fields.number("minor")?,
        file_mode: fields.number("fileMode")?,
        permissions: fields.text("permissions")?,
        uid: fields.number("uid")?,
        gid: fields.number("gid")?,
    };
    fields.done()?;
    Ok(node)
}

fn net_device(value: &Value, path: &str, lenient: bool) -> Result<NetDevice> {
    let mut fields = Fields::new(value, path, lenient)?;
    let device = NetDevice {
        host_interface_name: fields.required("hostInterfaceName")?,
        name: fields.required("name")?,
    };
    fields.done()?;
    Ok(device)
}

fn mount(value: &Value, path: &str, lenient: bool) -> Result<Mount> {
    let mut fields = Fields::new(value, path, lenient)?;
    let mount = Mount {
        host_path: fields.required("hostPath")?,
        container_path: fields.required("containerPath")?,
        mount_type: fields.text("type")?,
        options: fields.list("options", text)?,
    };
    fields.done()?;
    Ok(mount)
}

fn hook(value: &Value, path: &str, lenient: bool) -> Result<Hook> {
    let mut fields = Fields::new(value, path, lenient)?;
    let hook = Hook {
        hook_name: fields.required("hookName")?,
        path: fields.required("path")?,
        args: fields.list("args", text)?,
        env: fields.list("env", text)?,
        timeout: fields.number("timeout")?,
    };
    fields.done()?;
    Ok(hook)
}

fn rdt(value: &Value, path: &str, lenient: bool) -> Result<IntelRdt> {
    let mut fields = Fields::new(value, path, lenient)?;
    let rdt = IntelRdt {
        clos_id: fields.text("closID")?,
        l3_cache_schema: fields.text("l3CacheSchema")?,
        mem_bw_schema: fields.text("memBwSchema")?,
        schemata: fields.list("schemata", text)?,
        enable_monitoring: fields.flag("enableMonitoring")?,
        enable_cmt: fields.flag("enableCMT")?,
        enable_mbm: fields.flag("enableMBM")?,
    };
    fields.done()?;
    Ok(rdt)
}
