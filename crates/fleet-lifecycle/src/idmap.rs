//! Idmapped mounts (`man 2 mount_setattr`, `runtime-spec config.md#posix-platform-mounts`).
//!
//! libcontainer 0.7: refuses them (L8, youki#2307). The map is that of a user namespace made for it; it is put on the
//! detached mount before the container gets that.

use std::fmt::Write;
use std::os::fd::OwnedFd;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::{spec, usermap};

/// A map for one mount.
#[derive(Debug)]
pub(crate) struct IdMap {
    /// The namespace that has the map.
    pub(crate) namespace: OwnedFd,
    /// Also for all mounts below.
    pub(crate) recursive: bool,
}

/// Whether a mount is to be idmapped.
pub(crate) fn asked(mount: &Value) -> bool {
    option(mount).is_some()
        || ["uidMappings", "gidMappings"]
            .iter()
            .any(|key| !spec::list(mount, &format!("/{key}")).is_empty())
}

/// `idmap`, `ridmap`, and crun's `idmap=…`: whether it is recursive, and the text.
fn option(mount: &Value) -> Option<(bool, &str)> {
    spec::list(mount, "/options")
        .iter()
        .filter_map(Value::as_str)
        .find_map(|option| {
            let (name, text) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "idmap" => Some((false, text)),
                "ridmap" => Some((true, text)),
                _ => None,
            }
        })
}

/// The map of a mount, when it asks for one: its own, that of crun's option, or the container's.
///
/// # Errors
/// A map that cannot be read or made.
pub(crate) fn wanted(full: &Value, mount: &Value) -> Result<Option<IdMap>> {
    if !asked(mount) {
        return Ok(None);
    }
    let (recursive, text) = option(mount).unwrap_or((false, ""));
    let own = |key: &str| spec::list(mount, &format!("/{key}")).to_vec();
    let (uids, gids) = if !text.is_empty() {
        (maps(full, text, "uid")?, maps(full, text, "gid")?)
    } else if own("uidMappings").is_empty() && own("gidMappings").is_empty() {
        let containers = |key: &str| spec::list(full, &format!("/linux/{key}")).to_vec();
        (
            lines(&containers("uidMappings"))?,
            lines(&containers("gidMappings"))?,
        )
    } else {
        (lines(&own("uidMappings"))?, lines(&own("gidMappings"))?)
    };
    if uids.is_empty() || gids.is_empty() {
        return Err(Error::Invalid(format!(
            "mount `{}`: an idmapped mount needs `uidMappings` and `gidMappings`, or a container with a user namespace",
            mount["destination"].as_str().unwrap_or_default()
        )));
    }
    let namespace = usermap::with_maps(&uids, &gids)?;
    Ok(Some(IdMap {
        namespace,
        recursive,
    }))
}

fn lines(mappings: &[Value]) -> Result<String> {
    usermap::lines(mappings, "uidMappings or gidMappings")
}

/// crun's `uids=0-1-10#10-11-10;gids=…`: inside, outside, length; after `@` the second is an id of the container.
fn maps(full: &Value, text: &str, which: &str) -> Result<String> {
    let bad = || {
        Error::Invalid(format!(
            "`idmap={text}` is not a map; hint: uids=0-1000-1;gids=0-1000-1"
        ))
    };
    let mut out = String::new();
    for part in text.split(';') {
        let (name, list) = part.split_once('=').ok_or_else(bad)?;
        if !matches!(name, "uids" | "gids") {
            return Err(bad());
        }
        if !name.starts_with(which) {
            continue;
        }
        for entry in list.split('#') {
            let (relative, entry) = match entry.strip_prefix('@') {
                Some(entry) => (true, entry),
                None => (false, entry),
            };
            let numbers: Vec<u32> = entry
                .split('-')
                .map(|n| n.parse().map_err(|_| bad()))
                .collect::<Result<_>>()?;
            let [inside, outside, length] = numbers[..] else {
                return Err(bad());
            };
            let outside = if relative {
                on_host(full, which, outside).ok_or_else(bad)?
            } else {
                outside
            };
            let _ = writeln!(out, "{inside} {outside} {length}");
        }
    }
    Ok(out)
}

/// What an id of the container is on the host.
pub(crate) fn on_host(full: &Value, which: &str, id: u32) -> Option<u32> {
    let pointer = format!("/linux/{which}Mappings");
    spec::list(full, &pointer).iter().find_map(|mapping| {
        let number = |key: &str| spec::number(mapping, &format!("/{key}"));
        let (inside, outside, size) = (number("containerID")?, number("hostID")?, number("size")?);
        let offset = id.checked_sub(inside).filter(|offset| *offset < size)?;
        outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn crun_syntax() {
        let full =
            json!({"linux": {"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]}});
        let text = "uids=0-1-10#10-11-10;gids=0-3-10";
        assert_eq!(maps(&full, text, "uid").unwrap(), "0 1 10\n10 11 10\n");
        assert_eq!(maps(&full, text, "gid").unwrap(), "0 3 10\n");
        assert_eq!(maps(&full, "uids=@0-5-1", "uid").unwrap(), "0 1005 1\n");
        for bad in [
            "uids",
            "uids=1-2",
            "uids=a-b-c",
            "pids=1-2-3",
            "uids=@0-10-1",
        ] {
            assert!(maps(&full, bad, "uid").is_err(), "{bad}");
        }
    }

    #[test]
    fn who_asks() {
        for (mount, want) in [
            (json!({"options": ["rbind"]}), false),
            (json!({"options": ["idmap"]}), true),
            (json!({"options": ["ridmap"]}), true),
            (json!({"options": ["idmap=uids=0-1-1;gids=0-1-1"]}), true),
            (json!({"uidMappings": []}), false),
            (
                json!({"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
                true,
            ),
        ] {
            assert_eq!(asked(&mount), want, "{mount}");
        }
        let lone = json!({"destination": "/v", "options": ["idmap"]});
        assert!(
            wanted(&json!({}), &lone)
                .unwrap_err()
                .to_string()
                .contains("/v")
        );
    }
}
