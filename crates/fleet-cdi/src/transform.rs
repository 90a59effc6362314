//! Moving the paths of a spec from one root to another: a driver's files made in a container, say, for a machine that
//! has that container's root at `/run/driver`.

use crate::model::{ContainerEdits, Hook, Spec};

/// Whose paths are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Those on the host: where nodes and files come from, and programs that run there.
    Host,
    /// Those in the container: where nodes and files go, and programs that run there.
    Container,
}

/// A root that takes another's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootTransform {
    from: String,
    to: String,
    side: Side,
}

impl RootTransform {
    /// Paths below `from`, whole components compared, lie below `to` then. `/` stands for every path.
    #[must_use]
    pub fn new(from: &str, to: &str, side: Side) -> Self {
        let plain = |root: &str| root.trim_end_matches('/').to_owned();
        Self {
            from: plain(from),
            to: plain(to),
            side,
        }
    }

    /// Moves every path of the chosen side.
    pub fn apply(&self, spec: &mut Spec) {
        self.edits(&mut spec.container_edits);
        for device in &mut spec.devices {
            self.edits(&mut device.container_edits);
        }
    }

    fn edits(&self, edits: &mut ContainerEdits) {
        for node in &mut edits.device_nodes {
            match self.side {
                Side::Host => {
                    let host = node.host_path.as_deref().filter(|path| !path.is_empty());
                    let host = self.moved(host.unwrap_or(&node.path));
                    // Where both are the same, one of them is enough.
                    node.host_path = (host != node.path).then_some(host);
                }
                Side::Container => {
                    let host = node.host_path.get_or_insert_with(|| node.path.clone());
                    node.path = self.moved(&node.path);
                    if *host == node.path {
                        node.host_path = None;
                    }
                }
            }
        }
        for mount in &mut edits.mounts {
            let path = match self.side {
                Side::Host => &mut mount.host_path,
                Side::Container => &mut mount.container_path,
            };
            *path = self.moved(path);
        }
        edits.hooks.iter_mut().for_each(|hook| self.hook(hook));
    }

    /// A hook's program lies on the host, but that of `startContainer` in the container. The arguments of a hook name
    /// paths of the side that it works on: `createContainer` hooks prepare the container.
    fn hook(&self, hook: &mut Hook) {
        let program = match hook.hook_name.as_str() {
            "startContainer" => Side::Container,
            _ => Side::Host,
        };
        let arguments = match hook.hook_name.as_str() {
            "createContainer" | "startContainer" => Side::Container,
            _ => Side::Host,
        };
        if program == self.side {
            hook.path = self.moved(&hook.path);
        }
        if arguments == self.side {
            for arg in hook.args.iter_mut().skip(1) {
                *arg = self.argument(arg);
            }
        }
    }

    /// A path, `option=path`, or both halves of `target::link`.
    fn argument(&self, text: &str) -> String {
        if let Some((target, link)) = text.split_once("::") {
            return format!("{}::{}", self.argument(target), self.argument(link));
        }
        match text.split_once('=') {
            Some((option, path)) if option.starts_with('-') => {
                format!("{option}={}", self.moved(path))
            }
            _ => self.moved(text),
        }
    }

    fn moved(&self, path: &str) -> String {
        match path.strip_prefix(self.from.as_str()) {
            Some("") => match self.to.as_str() {
                "" => "/".to_owned(),
                to => to.to_owned(),
            },
            Some(rest) if rest.starts_with('/') => match (self.to.as_str(), rest) {
                ("", rest) => rest.to_owned(),
                (to, "/") => to.to_owned(),
                (to, rest) => format!("{to}{rest}"),
            },
            _ => path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use crate::{Format, parse};

    #[test]
    fn whole_components_are_compared() {
        let cases = [
            ("/driver", "/", "/driver/usr/lib", "/usr/lib"),
            ("/driver/", "", "/driver", "/"),
            ("/driver", "/x", "/driverless/lib", "/driverless/lib"),
            ("/driver", "/x", "/usr/driver", "/usr/driver"),
            ("/", "/run/driver", "/usr/lib", "/run/driver/usr/lib"),
            ("/", "/run/driver/", "/", "/run/driver"),
            ("/", "/", "/usr", "/usr"),
            ("/a", "/b", "relative/a", "relative/a"),
            ("/", "/b", "--flag", "--flag"),
        ];
        for (from, to, path, want) in cases {
            let moved = RootTransform::new(from, to, Side::Host).moved(path);
            assert_eq!(moved, want, "{from} to {to}: {path}");
        }
    }

    const SPEC: &str = "cdiVersion: 0.5.0\nkind: a.com/b\ndevices:\n- name: x\n  containerEdits:\n    deviceNodes: [{path: /d/dev/x}, {path: /dev/y, hostPath: /d/dev/y}]\n    mounts: [{hostPath: /d/lib, containerPath: /d/lib}]\n    hooks:\n    - {hookName: createContainer, path: /d/hook, args: [/d/hook, --link, \"/d/t::/d/l\", --folder=/d/f, /dx]}\n    - {hookName: createRuntime, path: /d/hook, args: [/d/hook, /d/arg]}\n    - {hookName: startContainer, path: /d/hook, args: [/d/hook, /d/arg]}\n";

    fn transformed(side: Side) -> ContainerEdits {
        let mut spec = parse(SPEC.as_bytes(), Format::Yaml).unwrap();
        RootTransform::new("/d", "/", side).apply(&mut spec);
        spec.validate().unwrap();
        spec.devices[0].container_edits.clone()
    }

    #[test]
    fn the_host_side() {
        let edits = transformed(Side::Host);
        let node = |at: usize| {
            let node = &edits.device_nodes[at];
            (node.path.as_str(), node.host_path.as_deref())
        };
        assert_eq!(node(0), ("/d/dev/x", Some("/dev/x")));
        assert_eq!(node(1), ("/dev/y", None));
        let mount = &edits.mounts[0];
        assert_eq!(
            (mount.host_path.as_str(), mount.container_path.as_str()),
            ("/lib", "/d/lib")
        );
        let hook = |at: usize| {
            (
                edits.hooks[at].path.as_str(),
                edits.hooks[at].args[1..].join(" "),
            )
        };
        assert_eq!(
            hook(0),
            ("/hook", "--link /d/t::/d/l --folder=/d/f /dx".to_owned())
        );
        assert_eq!(hook(1), ("/hook", "/arg".to_owned()));
        assert_eq!(hook(2), ("/d/hook", "/d/arg".to_owned()));
    }

    #[test]
    fn the_container_side() {
        let edits = transformed(Side::Container);
        let node = |at: usize| {
            let node = &edits.device_nodes[at];
            (node.path.as_str(), node.host_path.as_deref())
        };
        assert_eq!(node(0), ("/dev/x", Some("/d/dev/x")));
        assert_eq!(node(1), ("/dev/y", Some("/d/dev/y")));
        let mount = &edits.mounts[0];
        assert_eq!(
            (mount.host_path.as_str(), mount.container_path.as_str()),
            ("/d/lib", "/lib")
        );
        let hook = |at: usize| {
            (
                edits.hooks[at].path.as_str(),
                edits.hooks[at].args[1..].join(" "),
            )
        };
        assert_eq!(
            hook(0),
            ("/d/hook", "--link /t::/l --folder=/f /dx".to_owned())
        );
        assert_eq!(hook(1), ("/d/hook", "/d/arg".to_owned()));
        assert_eq!(hook(2), ("/hook", "/arg".to_owned()));
    }

    #[test]
    fn there_and_back_is_the_same() {
        let mut spec = parse(SPEC.as_bytes(), Format::Yaml).unwrap();
        let before = spec.clone();
        for side in [Side::Host, Side::Container] {
            RootTransform::new("/d", "/elsewhere", side).apply(&mut spec);
            assert_ne!(spec, before);
            RootTransform::new("/elsewhere", "/d", side).apply(&mut spec);
            assert_eq!(spec, before);
        }
        for seed in 0..200 {
            let mut spec = Dice::new(seed).spec();
            RootTransform::new("/", "/run/driver", Side::Host).apply(&mut spec);
            spec.cdi_version = "1.1.0".to_owned();
            let text = serde_json::to_string(&spec).unwrap();
            assert!(serde_json::from_str::<Spec>(&text).is_ok(), "seed {seed}");
        }
    }
}
