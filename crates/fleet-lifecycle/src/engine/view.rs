//! The part of the spec that the library is trusted with.
//!
//! What is left out is done by the tail: identity, capabilities, seccomp, labels, limits, devices, the terminal,
//! the working directory, the read-only root, and mounts or mount options that the library cannot do.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fleet_rootfs::root::clean;
use serde_json::{Map, Value, json};

use crate::annotations;
use crate::cgroup::Shown;
use crate::error::Result;
use crate::spec::{self, Namespace};
use crate::tail::mounts::{Fixup, LateMount, Layout, stays_a_peer};

/// The library's spec and what the tail has to do about mounts.
#[derive(Debug)]
pub struct View {
    /// The reduced spec.
    pub spec: Value,
    /// Mounts and mount changes left to the tail.
    pub layout: Layout,
}

/// Facts that change how mounts are made.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The process cannot make device nodes or mount sysfs without its own network namespace.
    pub in_user_namespace: bool,
    /// No cgroup was made for the container; the cgroup file system is hidden from the library.
    pub cgroup_hidden: bool,
    /// `/sys/fs/cgroup` of the host is a cgroup2 file system.
    pub unified: bool,
    /// On v1, what a cgroup mount shows.
    pub(crate) cgroups: &'a [Shown],
    /// The container's root directory.
    pub rootfs: BorrowedFd<'a>,
    /// Where relative sources begin.
    pub bundle: &'a Path,
}

/// Reduces `full` for the creation of a container.
///
/// # Errors
/// A mount that cannot be made, by destination.
pub fn create(full: &Value, here: Circumstances<'_>) -> Result<View> {
    let mut layout = Layout::default();
    let mounts = mounts(full, here, &mut layout)?;
    let mut linux = Map::new();
    for key in [
        "namespaces",
        "uidMappings",
        "gidMappings",
        "sysctl",
        "maskedPaths",
        "readonlyPaths",
        "netDevices",
        "timeOffsets",
        "memoryPolicy",
    ] {
        copy(full, "/linux", key, &mut linux);
    }
    // libcontainer 0.7: opens an empty path.
    let namespaces = linux.get_mut("namespaces").and_then(Value::as_array_mut);
    for namespace in namespaces.into_iter().flatten() {
        if namespace["path"] == "" {
            namespace.as_object_mut().map(|all| all.remove("path"));
        }
    }
    for key in ["maskedPaths", "readonlyPaths"] {
        if let Some(list) = linux.get_mut(key) {
            *list = paths(list, here.rootfs);
        }
    }
    if let Some(mode) = spec::text(full, "/linux/rootfsPropagation") {
        linux.insert("rootfsPropagation".into(), json!(propagation_word(mode)));
    }
    let mut spec = base(full, linux);
    spec["mounts"] = Value::Array(mounts);
    for key in ["hostname", "domainname"] {
        if let Some(value) = spec::text(full, &format!("/{key}")).filter(|v| !v.is_empty()) {
            spec[key] = json!(value);
        }
    }
    Ok(View { spec, layout })
}

fn base(full: &Value, linux: Map<String, Value>) -> Value {
    json!({
        "ociVersion": full["ociVersion"],
        "root": {"path": "/", "readonly": false},
        // The program, its identity and environment are the tail's; HOME keeps the library from looking it up.
        "process": {"cwd": "/", "args": ["container"], "env": ["HOME=/"], "user": {"uid": 0, "gid": 0}},
        "linux": linux,
    })
}

fn copy(full: &Value, at: &str, key: &str, into: &mut Map<String, Value>) {
    if let Some(value) = full
        .pointer(&format!("{at}/{key}"))
        .filter(|v| !v.is_null())
    {
        into.insert(key.to_owned(), value.clone());
    }
}

/// libcontainer 0.7: knows the modes without `r` only, and applies them recursively.
fn propagation_word(mode: &str) -> &str {
    match mode {
        "rshared" => "shared",
        "rslave" => "slave",
        "rprivate" => "private",
        "runbindable" => "unbindable",
        other => other,
    }
}

fn mounts(full: &Value, here: Circumstances<'_>, layout: &mut Layout) -> Result<Vec<Value>> {
    let all = spec::list(full, "/mounts");
    // The last one is what the container sees.
    let dev = all.iter().rev().find(|m| destination(m) == "/dev");
    // libcontainer 0.7: fails on default links and devices that exist (L12), so a /dev that is not a fresh file
    // system is replaced by a scratch one while the library works, and made by the tail afterwards.
    layout.own_dev = dev.is_none_or(is_bind);
    layout.bound_dev = dev.is_some_and(is_bind);
    let mut kept = Vec::with_capacity(all.len() + 1);
    if layout.own_dev {
        kept.push(json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}));
    }
    let own_network = spec::namespace(full, "network") == Namespace::New;
    let mapped = spec::namespace(full, "user") != Namespace::Inherited;
    let mut withheld: Vec<String> = Vec::new();
    if layout.own_dev {
        withheld.push("/dev".to_owned());
    }
    let kind = annotations::context_type(full)?;
    let label = spec::text(full, "/linux/mountLabel")
        .filter(|label| !label.is_empty())
        .map(|label| format!("{kind}=\"{label}\""));
    let files =
        !spec::text(full, "/linux/rootfsPropagation").is_some_and(|p| p.ends_with("shared"));
    for (index, mount) in all.iter().enumerate() {
        let to = destination(mount);
        let last = all
            .iter()
            .skip(index + 1)
            .all(|m| !is_below(&to, &destination(m)));
        if files
            && last
            && layout.late.len() < MOST_FILES
            && let Some(source) = file(mount, &to, here.bundle)
        {
            layout.late.push(LateMount::file(
                &source,
                &to,
                &spec::strings(mount, "/options"),
            )?);
            continue;
        }
        if mount["type"] == "cgroup" && !here.unified && !here.cgroup_hidden {
            let own = spec::namespace(full, "cgroup") != Namespace::Inherited;
            layout
                .late
                .extend(LateMount::cgroups(&to, here.cgroups, own)?);
            layout.fixups.extend(cgroup_fixup(&to, mount));
            withheld.push(to);
            continue;
        }
        let below = withheld.iter().any(|above| is_below(&to, above));
        if ((below || linked(here.rootfs, &to)) && mount["type"] != "cgroup")
            || (is_bind(mount)
                && (late(mount, &to, here, mapped) || !mapped && stays_a_peer(full, mount)))
        {
            layout
                .late
                .push(LateMount::from_spec(full, mount, here.bundle)?);
            withheld.push(to);
            continue;
        }
        if let Some(reduced) = reduce(mount, here, own_network, label.as_deref(), layout) {
            kept.push(reduced);
        }
    }
    Ok(kept)
}

/// Binds that the library cannot make: idmapped (L8), from a directory that the container's root may not enter (L9), or
/// over a symbolic link that leads to nothing (L24). One that stays a peer of the host's mount (`stays_a_peer`) is taken
/// before the runtime makes its own mounts slaves of the host's. What is mounted below a withheld mount must wait for it, too.
fn late(mount: &Value, to: &str, here: Circumstances<'_>, mapped: bool) -> bool {
    let source = here
        .bundle
        .join(mount["source"].as_str().unwrap_or_default());
    crate::idmap::asked(mount) || (mapped && !open_to_all(&source)) || dangling(here.rootfs, to)
}

/// Each takes a descriptor until it is mounted; the limit of those is often 1024.
const MOST_FILES: usize = 400;

/// Options of a file's bind that one call can set.
const FILE_OPTIONS: [&str; 10] = [
    "bind", "rbind", "ro", "nosuid", "nodev", "noexec", "private", "rprivate", "z", "Z",
];

/// The source of a bind mount of a file that may wait for the tail: what the library makes afterwards is not covered
/// by it, and masks nothing.
fn file(mount: &Value, to: &str, bundle: &Path) -> Option<PathBuf> {
    let plain = options(mount).iter().all(|o| FILE_OPTIONS.contains(o));
    let special = ["/proc", "/sys", "/dev"]
        .iter()
        .any(|dir| is_below(to, dir));
    if !is_bind(mount) || !plain || special || crate::idmap::asked(mount) {
        return None;
    }
    let source = bundle.join(mount["source"].as_str().filter(|s| !s.is_empty())?);
    source
        .metadata()
        .is_ok_and(|meta| !meta.is_dir())
        .then_some(source)
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || above == "/")
}

/// Whether every directory above may be entered by anybody.
fn open_to_all(path: &Path) -> bool {
    let Ok(real) = path.canonicalize() else {
        return true;
    };
    real.ancestors().skip(1).all(|dir| {
        dir.metadata()
            .is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
    })
}

/// Whether a symbolic link is on the way to a path: the library's root follows none (see
/// [`crate::surroundings::follow_no_links`]), the tail's does.
fn linked(rootfs: BorrowedFd<'_>, to: &str) -> bool {
    // That these are no links is the library's to refuse.
    if ["/proc", "/sys", "/dev"].contains(&to) {
        return false;
    }
    std::ffi::CString::new(to).is_ok_and(|path| {
        crate::sys::mount::open_without_links(rootfs, &path, libc::O_PATH)
            .is_err_and(|err| err.raw_os_error() == Some(libc::ELOOP))
    })
}

/// Where the links of the image lead a path, below the root.
fn unlinked(rootfs: BorrowedFd<'_>, path: &str) -> Option<String> {
    use std::os::fd::AsRawFd;
    let place = |fd: std::os::fd::RawFd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
    let target = std::ffi::CString::new(path).ok()?;
    let target = crate::sys::mount::open_in_root(rootfs, &target, libc::O_PATH).ok()?;
    let (root, target) = (place(rootfs.as_raw_fd())?, place(target.as_raw_fd())?);
    let below = target.strip_prefix(root).ok()?;
    Some(format!("/{}", below.to_str()?))
}

/// Masked and read-only paths without links of the image.
fn paths(list: &Value, rootfs: BorrowedFd<'_>) -> Value {
    let all = spec::strings(list, "");
    let plain = |path: String| {
        let own = !["/proc/", "/sys/"].iter().any(|dir| path.starts_with(dir));
        match own && linked(rootfs, &path) {
            true => unlinked(rootfs, &path).unwrap_or(path),
            false => path,
        }
    };
    json!(all.into_iter().map(plain).collect::<Vec<_>>())
}

fn dangling(rootfs: BorrowedFd<'_>, to: &str) -> bool {
    use crate::sys::mount::open_in_root;
    let Ok(path) = std::ffi::CString::new(to) else {
        return false;
    };
    let missing = open_in_root(rootfs, &path, libc::O_PATH)
        .is_err_and(|err| err.kind() == std::io::ErrorKind::NotFound);
    missing && open_in_root(rootfs, &path, libc::O_PATH | libc::O_NOFOLLOW).is_ok()
}

fn destination(mount: &Value) -> String {
    clean(mount["destination"].as_str().unwrap_or_default())
}

fn options(mount: &Value) -> Vec<&str> {
    spec::list(mount, "/options")
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

fn is_bind(mount: &Value) -> bool {
    mount["type"] == "bind"
        || options(mount)
            .iter()
            .any(|o| matches!(*o, "bind" | "rbind"))
}

/// One mount as the library can do it, or `None` when the tail does it all.
fn reduce(
    mount: &Value,
    here: Circumstances<'_>,
    own_network: bool,
    label: Option<&str>,
    layout: &mut Layout,
) -> Option<Value> {
    let to = destination(mount);
    let bind = is_bind(mount);
    let kind = mount["type"]
        .as_str()
        .unwrap_or(if bind { "bind" } else { "none" });
    if kind == "sysfs" && here.in_user_namespace && !own_network {
        // The kernel mounts sysfs only for the owner of the network namespace: show the host's, as crun does.
        return Some(host_sysfs(&to, &options(mount), layout));
    }
    if kind == "cgroup" && here.cgroup_hidden && !here.unified {
        layout.late.push(LateMount::empty_tmpfs(&to));
        return None;
    }
    let mut fixup = Fixup::new(&to);
    let mut kept: Vec<String> = Vec::new();
    for option in options(mount) {
        if !fixup.take(option, bind) {
            kept.push(option.to_owned());
        }
    }
    if kind == "cgroup" && options(mount).contains(&"ro") {
        fixup.make_read_only();
    }
    if kind == "tmpfs" && fixup.copy_up() {
        layout.copy_up.push(to.clone());
    }
    if kind == "tmpfs" && !kept.iter().any(|o| o.starts_with("mode=")) {
        // libcontainer 0.7: a tmpfs without mode does not take that of the directory it covers (L18).
        kept.extend(covered_mode(here.rootfs, &to).map(|mode| format!("mode={mode:o}")));
    }
    if let Some(label) =
        label.filter(|_| matches!(kind, "tmpfs" | "devpts" | "mqueue") && selinux())
    {
        kept.push(label.to_owned());
    }
    if to == "/dev" && options(mount).contains(&"ro") {
        layout.read_only_dev = true;
    }
    if fixup.needed() {
        layout.fixups.push(fixup);
    }
    let mut out = json!({"destination": to, "options": kept});
    // libcontainer 0.7: a mount without source is an error (L2).
    let source = mount["source"].as_str().filter(|s| !s.is_empty());
    out["source"] = match source {
        // libcontainer 0.7: looks for it below the caller's working directory, not the bundle.
        Some(source) if bind => json!(here.bundle.join(source)),
        other => json!(other.unwrap_or(kind)),
    };
    if kind == "cgroup" && here.cgroup_hidden {
        out["type"] = json!("cgroup2");
    } else if kind != "none" || mount.get("type").is_some() {
        out["type"] = json!(kind);
    }
    Some(out)
}

/// Propagation, and read-only for the tmpfs and what is in it.
fn cgroup_fixup(to: &str, mount: &Value) -> Option<Fixup> {
    let mut fixup = Fixup::new(to);
    for option in options(mount) {
        fixup.take_propagation(option);
        if option == "ro" {
            fixup.make_read_only();
        }
    }
    fixup.needed().then_some(fixup)
}

fn host_sysfs(to: &str, given: &[&str], layout: &mut Layout) -> Value {
    let mut fixup = Fixup::new(to);
    fixup.take("rslave", true);
    layout.fixups.push(fixup);
    let mut all = vec!["rbind".to_owned()];
    all.extend(
        given
            .iter()
            .filter(|o| matches!(**o, "ro" | "nosuid" | "nodev" | "noexec"))
            .map(|o| (*o).to_owned()),
    );
    json!({"destination": to, "type": "bind", "source": "/sys", "options": all})
}

fn covered_mode(rootfs: BorrowedFd<'_>, to: &str) -> Option<u32> {
    let path = std::ffi::CString::new(to).ok()?;
    let fd =
        crate::sys::mount::open_in_root(rootfs, &path, libc::O_PATH | libc::O_DIRECTORY).ok()?;
    let stat = nix::sys::stat::fstat(std::os::fd::AsRawFd::as_raw_fd(&fd)).ok()?;
    Some(stat.st_mode & 0o7777)
}

fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn view(mounts: Value) -> View {
        of(
            &json!({"ociVersion": "1.0.2", "mounts": mounts, "linux": {"rootfsPropagation": "rslave", "namespaces": [{"type": "mount"}], "seccomp": {}}, "process": {"args": ["x"]}}),
        )
    }

    fn of(full: &Value) -> View {
        let root = std::fs::File::open("/").unwrap();
        let here = Circumstances {
            in_user_namespace: false,
            cgroup_hidden: false,
            unified: false,
            cgroups: &[],
            rootfs: root.as_fd(),
            bundle: Path::new("/"),
        };
        create(full, here).unwrap()
    }

    #[test]
    fn an_empty_path_is_a_new_namespace() {
        let got = of(
            &json!({"linux": {"namespaces": [{"type": "mount", "path": ""}, {"type": "uts", "path": "/x"}]}}),
        );
        let wanted = json!([{"type": "mount"}, {"type": "uts", "path": "/x"}]);
        assert_eq!(got.spec["linux"]["namespaces"], wanted);
    }

    #[test]
    fn propagation_is_left_to_the_tail() {
        let got = view(json!([
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/v", "type": "bind", "source": "/tmp", "options": ["rbind", "rshared", "ro"]},
        ]));
        assert_eq!(got.spec["mounts"][1]["options"], json!(["rbind", "ro"]));
        assert_eq!(got.layout.fixups.len(), 1);
        assert_eq!(got.spec["linux"]["rootfsPropagation"], "slave");
        assert!(got.spec["linux"].get("seccomp").is_none());
        assert!(!got.layout.own_dev);
    }

    #[test]
    fn a_bound_dev_is_made_late() {
        let got = view(json!([
            {"destination": "/proc", "type": "proc"},
            {"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
        ]));
        assert!(got.layout.own_dev && got.layout.bound_dev);
        assert_eq!(got.layout.late.len(), 2);
        let kept: Vec<_> = got.spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["destination"].clone())
            .collect();
        assert_eq!(kept, [json!("/dev"), json!("/proc")]);
        assert_eq!(got.spec["mounts"][1]["source"], "proc");
    }

    #[test]
    fn files_are_bound_late_unless_something_covers_them() {
        let bind = |source: &str, to: &str, options: &[&str]| json!({"destination": to, "type": "bind", "source": source, "options": options});
        let got = view(json!([
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            bind("/etc/passwd", "/a/file", &["ro", "rbind", "rprivate"]),
            bind("/etc", "/b", &["rbind"]),
            bind("/etc/passwd", "/b/file", &["rbind", "rw"]),
            bind("/etc/passwd", "/c/covered", &["rbind"]),
            {"destination": "/c", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            bind("/etc/passwd", "/dev/file", &["rbind"]),
        ]));
        assert_eq!(got.layout.late.len(), 1);
        let kept = got.spec["mounts"].as_array().unwrap().iter();
        let kept: Vec<_> = kept.map(|m| m["destination"].as_str().unwrap()).collect();
        assert_eq!(
            kept,
            ["/dev", "/b", "/b/file", "/c/covered", "/c", "/dev/file"]
        );
    }

    #[test]
    fn copy_up_is_taken_out_of_the_options() {
        let got = view(json!([
            {"destination": "/dev", "type": "tmpfs"},
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["rw", "tmpcopyup", "mode=700"]},
        ]));
        assert_eq!(got.layout.copy_up, ["/run"]);
        assert_eq!(got.spec["mounts"][1]["options"], json!(["rw", "mode=700"]));
    }
}
