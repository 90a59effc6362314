//! From `linux.cgroupsPath` to an absolute path that is the container's alone.
//!
//! An absolute path counts from the mount point, as with crun and runc. For a relative or an absent one they differ:
//! crun takes the mount point again; runc takes the runtime's own cgroup on v1 and the one above that on v2, since a
//! cgroup that has processes cannot pass controllers on. Here it is as with runc, so that a container stays within
//! what its caller was given; on v1 the own cgroup is that of the devices controller, so that the path is one.

use std::fs;
use std::path::Path;

use fleet_rootfs::root::clean;

use super::hierarchy::{self, Hierarchy, Version};
use super::systemd::{self, HINT, Manager, Session};
use super::unit::Unit;
use super::{Cgroup, CgroupError, Driver, Result};

/// Longest path accepted, in bytes: with a mount point before it and a file name after it, it stays below `PATH_MAX`.
const LONGEST: usize = 3800;
/// `NAME_MAX`.
const LONGEST_NAME: usize = 255;

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
    /// Where a user's systemd is to be found.
    pub session: &'a Session,
}

pub(super) fn choose(request: &Request<'_>) -> Result<Cgroup> {
    let version = hierarchy::version();
    match request.driver {
        Driver::Disabled => return Ok(Cgroup::new(request.driver, version, String::new(), None)),
        Driver::Systemd if !systemd::booted() => {
            return Err(CgroupError::Invalid(format!(
                "systemd cannot manage the cgroup: this machine does not run it (`/run/systemd/system` is missing); {HINT}"
            )));
        }
        Driver::Systemd => return choose_unit(request, version, Manager::find(request.session)),
        Driver::Cgroupfs => {}
    }
    let given = request.cgroups_path.unwrap_or_default();
    check_text(given)?;
    let hierarchies = hierarchy::all(version)?;
    let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let (path, unit) = resolve(request, &base(version, &hierarchies, &table))?;
    if path.len() > LONGEST || path.split('/').any(|part| part.len() > LONGEST_NAME) {
        return Err(unusable(given, "it is too long"));
    }
    let own = hierarchies.iter().filter_map(|h| h.place(&table));
    refuse_dangerous(given, &path, own)?;
    Ok(Cgroup::new(request.driver, version, path, unit))
}

/// The unit that systemd is asked for; where its cgroup is will be seen when it is there.
fn choose_unit(request: &Request<'_>, version: Version, manager: Manager) -> Result<Cgroup> {
    let given = request.cgroups_path.unwrap_or_default();
    check_text(given)?;
    let default = format!(":fleet-nvidia:{}", request.id);
    let text = if given.is_empty() { &default } else { given };
    let unit = Unit::parse(text, manager.user).ok_or_else(|| {
        unusable(
            given,
            "with systemd it must be SLICE:PREFIX:NAME; hint: is the engine's cgroup manager systemd, too?",
        )
    })?;
    systemd::check_name(&unit.name)?;
    systemd::check_name(unit.slice())?;
    let path = unit
        .path()
        .ok_or_else(|| unusable(given, "its slice has no valid name"))?;
    if manager.user && version == Version::V1 {
        return Err(CgroupError::Invalid(format!(
            "a user's systemd cannot manage containers on cgroup v1; {HINT}"
        )));
    }
    let mut cgroup = Cgroup::new(request.driver, version, path, Some(unit.name.clone()));
    cgroup.unit = Some(unit);
    cgroup.manager = Some(manager);
    Ok(cgroup)
}

fn unusable(given: &str, why: &str) -> CgroupError {
    let shown: String = given.chars().take(80).collect();
    CgroupError::Invalid(format!(
        "`linux.cgroupsPath` \"{}\" is not usable: {why}",
        shown.escape_debug()
    ))
}

fn check_text(given: &str) -> Result<()> {
    if given.chars().any(char::is_control) {
        return Err(unusable(given, "it has a control character"));
    }
    if given.split('/').any(|part| part == "..") {
        return Err(unusable(given, "it has a \"..\""));
    }
    Ok(())
}

/// Where a relative path starts.
fn base(version: Version, hierarchies: &[Hierarchy], table: &str) -> String {
    let controller = if version == Version::V2 {
        ""
    } else {
        "devices"
    };
    let hierarchy = hierarchies
        .iter()
        .find(|h| h.has(controller))
        .or_else(|| hierarchies.first());
    // Outside of our cgroup namespace there is nothing to name.
    let own = hierarchy
        .and_then(|h| h.place(table))
        .filter(|own| !own.starts_with("/.."));
    let own = own.unwrap_or_else(|| "/".to_owned());
    match version {
        Version::V1 => own,
        Version::V2 => {
            let above = Path::new(&own).parent();
            above.map_or_else(|| "/".to_owned(), |above| above.display().to_string())
        }
    }
}

fn resolve(request: &Request<'_>, base: &str) -> Result<(String, Option<String>)> {
    let given = request.cgroups_path.unwrap_or_default();
    if given.is_empty() {
        return Ok((clean(&format!("{base}/{}", request.id)), None));
    }
    if given.starts_with('/') {
        return Ok((clean(given), None));
    }
    // systemd's form under cgroupfs: the same place, as a path.
    match Unit::parse(given, request.rootless) {
        Some(unit) => {
            let path = unit
                .path()
                .ok_or_else(|| unusable(given, "its slice has no valid name"))?;
            Ok((path, Some(unit.name)))
        }
        None => Ok((clean(&format!("{base}/{given}")), None)),
    }
}

/// Everything in the container's cgroup is killed in the end: it must not be ours, nor one that ours is in.
pub(super) fn refuse_dangerous(
    given: &str,
    path: &str,
    own: impl Iterator<Item = String>,
) -> Result<()> {
    let mut own = own;
    if path == "/" || own.any(|own| Path::new(&own).starts_with(path)) {
        return Err(unusable(
            given,
            "it is the runtime's own cgroup or one above it, and deleting the container would kill everything in it",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(cgroups_path: Option<&'a str>) -> Request<'a> {
        Request {
            driver: Driver::Cgroupfs,
            cgroups_path,
            id: "id",
            rootless: false,
            session: &NOBODY,
        }
    }

    const NOBODY: Session = Session {
        runtime_dir: None,
        session_bus: None,
        system_bus: None,
    };

    fn unit(given: &str) -> Result<Cgroup> {
        let manager = Manager::at(Path::new("/nonexistent"), false);
        choose_unit(&request(Some(given)), Version::V2, manager)
    }

    fn path(given: Option<&str>) -> Result<String> {
        choose(&request(given)).map(|cgroup| cgroup.path)
    }

    #[test]
    fn places() {
        for (given, base, want) in [
            (None, "/", "/id"),
            (Some(""), "/user.slice", "/user.slice/id"),
            (Some("/a//b/./"), "/x", "/a/b"),
            (Some("rel/x"), "/own", "/own/rel/x"),
            (Some("/a:b:c"), "/x", "/a:b:c"),
            (
                Some("machine.slice:libpod:x"),
                "/own",
                "/machine.slice/libpod-x.scope",
            ),
            (
                Some("kubepods-burstable.slice:crio:x"),
                "/",
                "/kubepods.slice/kubepods-burstable.slice/crio-x.scope",
            ),
            (Some("not-a-triple:x"), "/own", "/own/not-a-triple:x"),
        ] {
            assert_eq!(resolve(&request(given), base).unwrap().0, want, "{given:?}");
        }
        assert!(resolve(&request(Some("a--b.slice:x:y")), "/").is_err());
    }

    #[test]
    fn bases() {
        let table = "4:memory:/mem\n1:devices:/dev\n0::/a/b\n";
        let mount = Path::new("/m");
        let v1 = [
            hierarchy::at(mount, &["memory"]),
            hierarchy::at(mount, &["devices"]),
        ];
        assert_eq!(base(Version::V1, &v1, table), "/dev");
        let v2 = [hierarchy::at(mount, &[])];
        assert_eq!(base(Version::V2, &v2, table), "/a");
        assert_eq!(base(Version::V2, &v2, "0::/\n"), "/");
        assert_eq!(base(Version::V2, &v2, "0::/../x\n"), "/");
    }

    #[test]
    fn what_cannot_be_used() {
        for bad in [
            "/",
            "//",
            "/.",
            "/a/../..",
            "..",
            "a/..",
            "a\0b",
            "a\nb",
            &"x".repeat(300),
            &"/x".repeat(3000),
        ] {
            assert!(path(Some(bad)).is_err(), "{bad:?}");
        }
        assert!(path(Some("/fleet-test-choose")).is_ok());
    }

    #[test]
    fn own_cgroup_and_those_above_it() {
        for (path, own, refused) in [
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
            ("/", "/x", true),
        ] {
            let result = refuse_dangerous(
                path,
                path,
                ["/other".to_owned(), own.to_owned()].into_iter(),
            );
            assert_eq!(result.is_err(), refused, "{path} {own}");
        }
    }

    #[test]
    fn nothing_is_chosen_when_disabled() {
        let request = Request {
            driver: Driver::Disabled,
            ..request(Some("/x"))
        };
        let cgroup = choose(&request).unwrap();
        assert_eq!(cgroup.path(), "");
        assert!(!cgroup.writable());
    }

    #[test]
    fn units() {
        for (given, path, name) in [
            (
                "machine.slice:libpod:x",
                "/machine.slice/libpod-x.scope",
                "libpod-x.scope",
            ),
            (
                "",
                "/system.slice/fleet-nvidia-id.scope",
                "fleet-nvidia-id.scope",
            ),
            (
                "a-b.slice:crio:x",
                "/a.slice/a-b.slice/crio-x.scope",
                "crio-x.scope",
            ),
            ("a.slice:p:b-c.slice", "/b.slice/b-c.slice", "b-c.slice"),
        ] {
            let cgroup = unit(given).unwrap();
            assert_eq!(
                (cgroup.path(), cgroup.scope()),
                (path, Some(name)),
                "{given}"
            );
        }
        for bad in [
            "/a/b",
            "a/b",
            "a:b:c",
            "a.slice:b",
            "a.slice:b:c+d",
            "a--b.slice:p:x",
            "a.slice:p:é",
        ] {
            assert!(unit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_systemd_the_way_out_is_told() {
        if systemd::booted() {
            return;
        }
        let request = Request {
            driver: Driver::Systemd,
            ..request(None)
        };
        let text = choose(&request).unwrap_err().to_string();
        assert!(text.contains("--cgroup-manager=cgroupfs"), "{text}");
    }
}
