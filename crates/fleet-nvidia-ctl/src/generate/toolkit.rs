//! The one setting of NVIDIA's toolkit that its generator takes over: where the driver is.

use std::path::Path;

use fleet_host::Tree;

const FILE: &str = "nvidia-container-runtime/config.toml";

/// `nvidia-container-cli.root` of the toolkit's configuration, if there is one that says so.
pub(super) fn driver_root(root: &Path) -> Option<String> {
    let machine = Tree::open(root, "/").ok()?;
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let path = variable("NVIDIA_CTK_CONFIG_FILE_PATH").unwrap_or_else(|| {
        let dir = variable("XDG_CONFIG_HOME").unwrap_or_else(|| "/etc".to_owned());
        format!("{dir}/{FILE}")
    });
    let text = machine.text(&path).ok()?;
    let table: toml_edit::DocumentMut = text.parse().ok()?;
    let value = table.get("nvidia-container-cli")?.get("root")?.as_str()?;
    Some(value.to_owned()).filter(|root| root.starts_with('/'))
}
