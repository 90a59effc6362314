//! From `linux.cgroupsPath` to an absolute path that is the container's alone.

use super::hierarchy::{self, Version};
use super::{Cgroup, CgroupError, Driver, Result};
use crate::engine::view::clean;

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who manages cgroups.
    pub driver: Driver,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a str>,
    /// Container id.
    pub id: &'a str,
    /// Not the machine's root.
    pub rootless: bool,
}

pub(super) fn choose(request: &Request<'_>) -> Result<Cgroup> {
    let version = hierarchy::version();
    let cgroup = |path: String| Cgroup {
        driver: request.driver,
        version,
        path,
        made: false,
    };
    match request.driver {
        Driver::Disabled => return Ok(cgroup(String::new())),
        Driver::Systemd => {
            return Err(CgroupError::Invalid(
                "the systemd cgroup manager is not supported yet; hint: use cgroupfs (podman --cgroup-manager=cgroupfs, or \
                 cgroup_manager = \"cgroupfs\" in containers.conf or crio.conf)"
                    .to_owned(),
            ));
        }
        Driver::Cgroupfs => {}
    }
    let given = request.cgroups_path.unwrap_or_default();
    let path = resolve(given, request.id, version)?;
    refuse_dangerous(given, &path, version)?;
    Ok(cgroup(path))
}

/// As the peers: absolute from the mount point, relative below the caller's own cgroup, absent by id.
fn resolve(given: &str, id: &str, version: Version) -> Result<String> {
    if given.contains('\0')
        || given
            .split('/')
            .any(|part| part == ".." || part.len() > 255)
        || given.len() > 4000
    {
        return Err(CgroupError::Invalid(format!(
            "`linux.cgroupsPath` \"{}\" is not usable",
            given.escape_debug()
        )));
    }
    let parts: Vec<&str> = given.split(':').collect();
    let relative = match (given, parts.as_slice()) {
        ("", _) => format!("fleet-nvidia-{id}"),
        (_, [slice, prefix, name]) => {
            // A systemd triple under cgroupfs: the same place, as a path.
            return Ok(clean(&format!(
                "/{}/{prefix}-{name}.scope",
                if slice.is_empty() {
                    "system.slice"
                } else {
                    slice
                }
            )));
        }
        (path, _) if path.starts_with('/') => return Ok(clean(path)),
        (path, _) => path.to_owned(),
    };
    Ok(clean(&format!("{}/{relative}", own(version))))
}

/// v1 has one own cgroup per controller; the peers take that of the devices controller.
fn own(version: Version) -> String {
    let controller = if version == Version::V2 {
        ""
    } else {
        "devices"
    };
    hierarchy::own_path("/proc/self/cgroup", controller).unwrap_or_default()
}

/// Everything in the container's cgroup is killed in the end: it must not be ours, nor one that ours is in.
fn refuse_dangerous(given: &str, path: &str, version: Version) -> Result<()> {
    let controllers = if version == Version::V2 {
        vec![""]
    } else {
        vec![
            "devices",
            "memory",
            "pids",
            "freezer",
            "cpu",
            "name=systemd",
        ]
    };
    let own = controllers
        .iter()
        .filter_map(|c| hierarchy::own_path("/proc/self/cgroup", c));
    let inside = own
        .into_iter()
        .any(|own| std::path::Path::new(&own).starts_with(path));
    if path == "/" || inside {
        return Err(CgroupError::Invalid(format!(
            "`linux.cgroupsPath` \"{}\" is the runtime's own cgroup or one above it: refused, since deleting the container would kill \
             everything in it",
            given.escape_debug()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(given: Option<&str>) -> Result<String> {
        let request = Request {
            driver: Driver::Cgroupfs,
            cgroups_path: given,
            id: "id",
            rootless: false,
        };
        choose(&request).map(|cgroup| cgroup.path)
    }

    #[test]
    fn paths() {
        assert_eq!(path(Some("/a//b/")).unwrap(), "/a/b");
        assert_eq!(
            path(Some("machine.slice:libpod:x")).unwrap(),
            "/machine.slice/libpod-x.scope"
        );
        assert!(path(Some("rel")).unwrap().ends_with("/rel"));
        assert!(path(None).unwrap().ends_with("/fleet-nvidia-id"));
        assert!(path(Some("")).unwrap().ends_with("/fleet-nvidia-id"));
        for bad in ["/", "//", "/a/../..", "..", "a\0b", "/.", &"x".repeat(300)] {
            assert!(path(Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn systemd_is_refused_with_the_way_out() {
        let request = Request {
            driver: Driver::Systemd,
            cgroups_path: None,
            id: "id",
            rootless: false,
        };
        assert!(
            choose(&request)
                .unwrap_err()
                .to_string()
                .contains("cgroupfs")
        );
    }
}
