//! Links that belong to a library.

use fleet_rootfs::elf;

use super::{File, Link};
use crate::tree::Tree;

/// Links to make for a library: those that programs expect whether the host has them or not, then its SONAME and its
/// plain name where the host has them.
pub(super) fn of(tree: &Tree, file: &File, warnings: &mut Vec<String>) -> Vec<Link> {
    let dir = file.dir().trim_end_matches('/');
    let link = |target: &str, name: &str| Link {
        target: target.to_owned(),
        link: format!("{dir}/{name}"),
    };
    let name = file.name();
    let mut links = Vec::new();
    for (start, target, always) in ALWAYS {
        if name.strip_prefix(start).is_some_and(has_dot) {
            links.push(link(target.unwrap_or(name), always));
        }
    }
    if !is_numbered(name) {
        return links;
    }
    let soname = match soname(tree, &file.container) {
        Ok(soname) => soname.unwrap_or_else(|| name.to_owned()),
        Err(why) => {
            warnings.push(format!("library {} gets no links: {why}", file.host));
            return links;
        }
    };
    let on_host = |name: &str| tree.is_link(&format!("{dir}/{name}"));
    if soname != name && on_host(&soname) {
        links.push(link(name, &soname));
    }
    if let Some(plain) = plain_name(&soname).filter(|plain| *plain != soname && on_host(plain)) {
        let plain = link(&soname, plain);
        if !links.contains(&plain) {
            links.push(plain);
        }
    }
    links
}

/// Programs load `libcuda.so` and `libnvidia-opticalflow.so` by their plain names; indirect GLX looks for
/// `libGLX_indirect.so.0`. File name's start, text of the link (the file's name when none), link.
const ALWAYS: [(&str, Option<&str>, &str); 3] = [
    ("libcuda.so.", Some("libcuda.so.1"), "libcuda.so"),
    ("libGLX_nvidia.so.", None, "libGLX_indirect.so.0"),
    (
        "libnvidia-opticalflow.so.",
        Some("libnvidia-opticalflow.so.1"),
        "libnvidia-opticalflow.so",
    ),
];

fn has_dot(version: &str) -> bool {
    version.contains('.')
}

/// Whether the name has a number behind `.so.`.
fn is_numbered(name: &str) -> bool {
    name.matches('.').count() >= 2
}

fn soname(tree: &Tree, path: &str) -> Result<Option<String>, String> {
    let file = tree.file(path).map_err(|err| err.to_string())?;
    let library = elf::library(&file).ok_or("it is no shared library")?;
    Ok(library.soname)
}

/// `libcuda.so` of `libcuda.so.1`.
fn plain_name(soname: &str) -> Option<&str> {
    let mut name = soname;
    loop {
        let (front, last) = name.rsplit_once('.')?;
        if last == "so" {
            return Some(name);
        }
        name = front;
    }
}
