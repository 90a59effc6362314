//! From nodes to the model.

use crate::fields::{Fields, Path, Result, number, text};
use crate::model::{ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec};
use crate::node::{Entry, Fault, Node, Value};
use crate::scalar::Scalar;
use crate::shown::shown;

pub(crate) fn spec(node: Node<'_>) -> Result<Spec> {
    check_version_is_text(&node)?;
    let path = Path::Root;
    let mut fields = Fields::of(node, &path)?;
    let spec = Spec {
        cdi_version: fields.required("cdiVersion")?,
        kind: fields.required("kind")?,
        annotations: fields.map("annotations")?,
        container_edits: optional_edits(&mut fields, &path)?,
        devices: fields.list("devices", device)?,
    };
    fields.done()?;
    Ok(spec)
}

/// `cdiVersion: 0.5` and even `1.0` are numbers, and as text they would be "0.5" and "1".
fn check_version_is_text(node: &Node<'_>) -> Result<()> {
    let Value::Map(entries) = &node.value else {
        return Ok(());
    };
    let is_version = |entry: &&Entry<'_>| entry.key.eq_ignore_ascii_case("cdiVersion");
    let Some(entry) = entries.iter().find(is_version) else {
        return Ok(());
    };
    match &entry.node.value {
        Value::Plain(text) if matches!(Scalar::of(text), Scalar::Float(_) | Scalar::Integer(_)) => {
            Err(Fault::new(
                entry.node.at,
                format!(
                    "cdiVersion is the number {}, so it is an invalid version; hint: a version has three parts, such as \"0.5.0\"",
                    shown(text)
                ),
            ))
        }
        _ => Ok(()),
    }
}

fn optional_edits(fields: &mut Fields<'_, '_>, path: &Path<'_>) -> Result<ContainerEdits> {
    match fields.take("containerEdits") {
        Some(node) => edits(node, &Path::Key(path, "containerEdits")),
        None => Ok(ContainerEdits::default()),
    }
}

fn device(node: Node<'_>, path: &Path<'_>) -> Result<Device> {
    let mut fields = Fields::of(node, path)?;
    let device = Device {
        name: fields.required("name")?,
        annotations: fields.map("annotations")?,
        container_edits: optional_edits(&mut fields, path)?,
    };
    fields.done()?;
    Ok(device)
}

fn edits(node: Node<'_>, path: &Path<'_>) -> Result<ContainerEdits> {
    let mut fields = Fields::of(node, path)?;
    let edits = ContainerEdits {
        env: fields.list("env", text)?,
        device_nodes: fields.list("deviceNodes", device_node)?,
        net_devices: fields.list("netDevices", net_device)?,
        hooks: fields.list("hooks", hook)?,
        mounts: fields.list("mounts", mount)?,
        intel_rdt: fields
            .take("intelRdt")
            .map(|node| rdt(node, &Path::Key(path, "intelRdt")))
            .transpose()?,
        additional_gids: fields.list("additionalGids", |node, path| number(&node, path))?,
    };
    fields.done()?;
    Ok(edits)
}

fn device_node(node: Node<'_>, path: &Path<'_>) -> Result<DeviceNode> {
    let mut fields = Fields::of(node, path)?;
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

fn net_device(node: Node<'_>, path: &Path<'_>) -> Result<NetDevice> {
    let mut fields = Fields::of(node, path)?;
    let device = NetDevice {
        host_interface_name: fields.required("hostInterfaceName")?,
        name: fields.required("name")?,
    };
    fields.done()?;
    Ok(device)
}

fn mount(node: Node<'_>, path: &Path<'_>) -> Result<Mount> {
    let mut fields = Fields::of(node, path)?;
    let mount = Mount {
        host_path: fields.required("hostPath")?,
        container_path: fields.required("containerPath")?,
        mount_type: fields.text("type")?,
        options: fields.list("options", text)?,
    };
    fields.done()?;
    Ok(mount)
}

fn hook(node: Node<'_>, path: &Path<'_>) -> Result<Hook> {
    let mut fields = Fields::of(node, path)?;
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

fn rdt(node: Node<'_>, path: &Path<'_>) -> Result<IntelRdt> {
    let mut fields = Fields::of(node, path)?;
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
