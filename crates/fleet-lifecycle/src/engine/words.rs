//! libcontainer 0.7: shows what failed in Rust's own form, all fields of a mount or a namespace of the spec.

use nix::errno::Errno;

/// The text with mounts and namespaces as people write them.
pub(super) fn plain(text: &str) -> String {
    mount(&namespace(text))
}

fn mount(text: &str) -> String {
    let Some((before, mount, after)) = shown(text, "Mount { ") else {
        return text.to_owned();
    };
    let (kind, after) = (quoted(mount, "typ"), after.replacen(": syscall", "", 1));
    let hint = match kind {
        "proc" | "sysfs" if after.ends_with(Errno::EPERM.desc()) => {
            "; hint: in a user namespace the kernel allows it only while nothing is mounted over the host's own"
        }
        _ => "",
    };
    let kind = match kind {
        "" => String::new(),
        kind => format!(" ({kind})"),
    };
    let destination = quoted(mount, "destination");
    format!("{before}`{destination}`{kind}{after}{hint}")
}

fn namespace(text: &str) -> String {
    let Some((before, namespace, after)) = shown(text, "LinuxNamespace { ") else {
        return text.to_owned();
    };
    let kind = namespace.strip_prefix("typ: ").unwrap_or_default();
    let kind = kind.split(',').next().unwrap_or_default().to_lowercase();
    let path = quoted(namespace, "path");
    format!("{before}{kind} `{path}`{after}")
}

/// What is before a structure, in it, and after it.
fn shown<'a>(text: &'a str, start: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (before, rest) = text.split_once(start)?;
    let (inside, after) = structure(rest)?;
    Some((before, inside, after))
}

/// The text of a field; nothing where it has none.
fn quoted<'a>(structure: &'a str, field: &str) -> &'a str {
    let value = structure.split_once(&format!("{field}: "));
    let value = value.map_or("", |(_, value)| {
        value.strip_prefix("Some(").unwrap_or(value)
    });
    match value.strip_prefix('"') {
        Some(text) => text.split('"').next().unwrap_or_default(),
        None => "",
    }
}

/// What is within the braces, and what follows them.
fn structure(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut in_text, mut escaped) = (1_u32, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = in_text,
            '"' => in_text = !in_text,
            '{' if !in_text => depth += 1,
            '}' if !in_text => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Mount;
    use serde_json::{Value, json};

    use super::*;

    fn shown(mount: Value) -> String {
        format!("{:?}", serde_json::from_value::<Mount>(mount).unwrap())
    }

    #[test]
    fn mounts() {
        let maps = json!([{"containerID": 0, "hostID": 1, "size": 2}]);
        let mount = shown(json!({
            "destination": "/a } \\", "type": "tmpfs", "options": ["uid={1}"], "uidMappings": maps, "gidMappings": maps,
        }));
        let said = plain(&format!("failed to mount {mount}: syscall: No such device"));
        assert_eq!(said, "failed to mount `/a } \\\\` (tmpfs): No such device");
        let mount = shown(json!({"destination": "/proc", "type": "proc"}));
        let said = plain(&format!("{mount}: Operation not permitted"));
        assert!(
            said.starts_with("`/proc` (proc): Operation not permitted; hint: "),
            "{said}"
        );
        let untyped = shown(json!({"destination": "/x"}));
        assert_eq!(plain(&untyped), "`/x`");
        let late = format!(
            "failed to mount {untyped}: syscall: {}",
            Errno::ENODEV.desc()
        );
        assert_eq!(plain(&late), "failed to mount `/x`: No such device");
        for other in ["failed to fork", "Mount { destination: \"/x\""] {
            assert_eq!(plain(other), other);
        }
    }

    #[test]
    fn namespaces() {
        let namespace = json!({"type": "network", "path": "/run/netns/x"});
        let namespace = serde_json::from_value::<oci_spec::runtime::LinuxNamespace>(namespace);
        let text = format!("failed to open (namespace {:?}): why", namespace.unwrap());
        assert_eq!(
            plain(&text),
            "failed to open (namespace network `/run/netns/x`): why"
        );
    }
}
