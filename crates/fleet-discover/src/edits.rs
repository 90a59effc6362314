//! Device nodes and files as edits of a CDI spec.

use fleet_cdi::{ContainerEdits, DeviceNode, Mount};
use fleet_host::files::File;
use fleet_host::{NodeStat, Tree};

/// Files are the host's and read-only.
const FILE: [&str; 5] = ["ro", "nosuid", "nodev", "rbind", "rprivate"];
/// Daemons are talked to through their sockets.
const SOCKET: [&str; 5] = ["nosuid", "nodev", "rbind", "rprivate", "noexec"];

/// Adds files.
pub(crate) fn add_files<'f>(edits: &mut ContainerEdits, files: impl Iterator<Item = &'f File>) {
    edits.mounts.extend(files.map(|file| mount(file, &FILE)));
}

/// Adds sockets of daemons.
pub(crate) fn add_sockets(edits: &mut ContainerEdits, files: &[File]) {
    edits
        .mounts
        .extend(files.iter().map(|file| mount(file, &SOCKET)));
}

fn mount(file: &File, options: &[&str]) -> Mount {
    Mount {
        host_path: file.host.clone(),
        container_path: file.container.clone(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// Adds a device node if it is there and is one; says whether.
pub(crate) fn add_node(edits: &mut ContainerEdits, dev: &Tree, path: &str, gids: bool) -> bool {
    let Ok(Some(stat)) = dev.node(path) else {
        return false;
    };
    edits.device_nodes.push(node(dev, path, &stat));
    let everybody = stat.mode & 0o006 == 0o006;
    if gids && stat.gid != 0 && stat.mode & 0o777 != 0 && !everybody {
        edits.additional_gids.push(stat.gid);
    }
    true
}

/// Adds the nodes that match a pattern, in the order of their names; says how many.
pub(crate) fn add_nodes(
    edits: &mut ContainerEdits,
    dev: &Tree,
    pattern: &str,
    gids: bool,
) -> usize {
    let paths = dev.glob(pattern);
    let added = paths.iter().filter(|path| add_node(edits, dev, path, gids));
    added.count()
}

fn node(dev: &Tree, path: &str, stat: &NodeStat) -> DeviceNode {
    let host = dev.host(path);
    DeviceNode {
        path: path.to_owned(),
        // Readers before CDI 0.5.0 refuse the field, and the path says the same.
        host_path: (host != path).then_some(host),
        major: Some(stat.major.into()),
        minor: Some(stat.minor.into()),
        file_mode: Some(stat.mode & 0o777).filter(|mode| *mode != 0),
        permissions: Some("rwm".to_owned()),
        gid: Some(stat.gid).filter(|gid| *gid != 0),
        ..DeviceNode::default()
    }
}

/// Appends edits to others.
pub(crate) fn append(to: &mut ContainerEdits, more: ContainerEdits) {
    to.env.extend(more.env);
    to.device_nodes.extend(more.device_nodes);
    to.net_devices.extend(more.net_devices);
    to.hooks.extend(more.hooks);
    to.mounts.extend(more.mounts);
    to.intel_rdt = more.intel_rdt.or_else(|| to.intel_rdt.take());
    to.additional_gids.extend(more.additional_gids);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(mode: u32, gid: u32, gids: bool) -> ContainerEdits {
        let dir = tempfile::tempdir().unwrap();
        let stat = NodeStat {
            major: 226,
            minor: 1,
            mode,
            gid,
        };
        let nodes = [("/dev/dri/card1".to_owned(), stat)].into_iter().collect();
        let dev = Tree::open(dir.path(), "/").unwrap().with_nodes(nodes);
        let mut edits = ContainerEdits::default();
        assert!(add_node(&mut edits, &dev, "/dev/dri/card1", gids));
        assert!(!add_node(&mut edits, &dev, "/dev/dri/card2", gids));
        edits
    }

    #[test]
    fn mode_and_group_are_stated_where_they_say_something() {
        for (mode, gid, want) in [
            (0o660, 44, (Some(0o660), Some(44))),
            (0o4666, 0, (Some(0o666), None)),
            (0, 44, (None, Some(44))),
        ] {
            let node = &added(mode, gid, true).device_nodes[0];
            assert_eq!((node.file_mode, node.gid), want, "{mode:o} {gid}");
            assert_eq!((node.uid, &node.device_type), (None, &None));
            assert_eq!((node.major, node.minor), (Some(226), Some(1)));
            assert_eq!(node.permissions.as_deref(), Some("rwm"));
            assert_eq!(node.host_path, None, "it is where the container sees it");
        }
    }

    #[test]
    fn groups_are_needed_for_nodes_that_not_everybody_may_read_and_write() {
        for (mode, gid, want) in [
            (0o660, 44, true),
            (0o664, 44, true),
            (0o662, 44, true),
            (0o666, 44, false),
            (0o660, 0, false),
            // Nobody may open it, so the group is none that helps.
            (0, 44, false),
        ] {
            let got = !added(mode, gid, true).additional_gids.is_empty();
            assert_eq!(got, want, "{mode:o} {gid}");
            assert!(added(mode, gid, false).additional_gids.is_empty());
        }
    }
}
