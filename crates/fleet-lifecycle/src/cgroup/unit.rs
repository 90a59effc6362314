//! systemd's form of `linux.cgroupsPath`, `SLICE:PREFIX:NAME`, and the cgroup that such a unit has
//! (`man 5 systemd.slice`).

/// A unit that a container lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// The slice above it.
    slice: String,
    /// Its own name, with suffix.
    pub(super) name: String,
}

impl Unit {
    /// Reads a triple; `None` for anything else, which is a path. An empty slice is the default one.
    pub(super) fn parse(text: &str, rootless: bool) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts.as_slice() else {
            return None;
        };
        if text.contains('/') || name.is_empty() || !(slice.is_empty() || slice.ends_with(".slice"))
        {
            return None;
        }
        let default = if rootless {
            "user.slice"
        } else {
            "system.slice"
        };
        let name = match (*prefix, *name) {
            (_, name) if name.ends_with(".slice") => name.to_owned(),
            ("", name) if name.ends_with(".scope") => name.to_owned(),
            ("", name) => format!("{name}.scope"),
            (prefix, name) => format!("{prefix}-{name}.scope"),
        };
        let slice = if slice.is_empty() { default } else { slice };
        Some(Self {
            slice: slice.to_owned(),
            name,
        })
    }

    /// The slice above it.
    pub(super) fn slice(&self) -> &str {
        &self.slice
    }

    pub(super) fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Its cgroup; `None` when a slice is not named as systemd demands.
    pub(super) fn path(&self) -> Option<String> {
        if self.is_slice() {
            return slice_path(&self.name);
        }
        let slice = slice_path(&self.slice)?;
        Some(format!("{}/{}", slice.trim_end_matches('/'), self.name))
    }
}

/// `a-b.slice` lies in `a.slice`; `-.slice` is the root.
fn slice_path(slice: &str) -> Option<String> {
    let stem = slice.strip_suffix(".slice")?;
    if stem == "-" {
        return Some("/".to_owned());
    }
    let mut path = String::new();
    let mut above = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return None;
        }
        above = if above.is_empty() {
            part.to_owned()
        } else {
            format!("{above}-{part}")
        };
        path.push_str(&format!("/{above}.slice"));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples() {
        for (text, rootless, want) in [
            (
                "machine.slice:libpod:x",
                false,
                Some("/machine.slice/libpod-x.scope"),
            ),
            (":crio:x", false, Some("/system.slice/crio-x.scope")),
            (":libpod:x", true, Some("/user.slice/libpod-x.scope")),
            ("a.slice::x", false, Some("/a.slice/x.scope")),
            ("a.slice::x.scope", false, Some("/a.slice/x.scope")),
            ("a.slice:p:b-c.slice", false, Some("/b.slice/b-c.slice")),
            ("-.slice:p:x", false, Some("/p-x.scope")),
            (
                "a-b-c.slice:p:x",
                false,
                Some("/a.slice/a-b.slice/a-b-c.slice/p-x.scope"),
            ),
            ("-a.slice:p:x", false, None),
            ("a-.slice:p:x", false, None),
        ] {
            let unit = Unit::parse(text, rootless).unwrap();
            assert_eq!(unit.path().as_deref(), want, "{text}");
        }
    }

    #[test]
    fn paths_are_no_triples() {
        for text in [
            "",
            "a",
            "a:b",
            "a:b:c",
            "/a.slice:b:c",
            "a.slice:b/c:d",
            "a.slice:b:",
            "a.slice:b:c:d",
        ] {
            assert_eq!(Unit::parse(text, false), None, "{text}");
        }
    }
}
