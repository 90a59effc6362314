//! From what is written to CDI names: bare ids, `all`, `none`, `void`, and NVIDIA's "automatic" vendor.

use fleet_cdi::QualifiedName;

use super::{Asked, KindOnly, RequestError, Source, Wanted};

/// NVIDIA's runtime makes devices of this kind up in memory; here they are the default kind's.
const AUTOMATIC_KIND: &str = "runtime.nvidia.com/gpu";

/// A fully qualified name.
pub(super) fn qualified(text: &str, source: &Source) -> Result<QualifiedName, RequestError> {
    text.parse().map_err(|why| RequestError::Name {
        origin: source.clone(),
        why,
    })
}

/// `id` of `kind`.
pub(super) fn of_kind(
    kind: &str,
    id: &str,
    source: &Source,
) -> Result<QualifiedName, RequestError> {
    qualified(&format!("{kind}={id}"), source)
}

/// A list in the form of `NVIDIA_VISIBLE_DEVICES`: `void` anywhere means nothing, the first of `all` and `none`
/// decides, and a bare id belongs to `kind`.
pub(super) fn visible(list: &[(&str, Source)], kind: &str) -> Result<Wanted, RequestError> {
    let mut wanted = Wanted::default();
    if list.iter().any(|(id, _)| *id == "void") {
        return Ok(wanted);
    }
    if let Some((id, source)) = list.iter().find(|(id, _)| matches!(*id, "all" | "none")) {
        match *id {
            "all" => wanted.devices.push(Asked {
                name: of_kind(kind, id, source)?,
                source: source.clone(),
            }),
            _ => {
                wanted.none = Some(KindOnly {
                    kind: kind.to_owned(),
                    source: source.clone(),
                })
            }
        }
        return Ok(wanted);
    }
    for (id, source) in list {
        wanted.devices.push(Asked {
            name: named(id, kind, source)?,
            source: source.clone(),
        });
    }
    agree(list, &wanted.devices, kind)?;
    Ok(wanted)
}

fn named(id: &str, kind: &str, source: &Source) -> Result<QualifiedName, RequestError> {
    if !is_qualified(id) {
        return of_kind(kind, id, source);
    }
    let name = qualified(id, source)?;
    match name.kind() == AUTOMATIC_KIND {
        true => of_kind(kind, name.name(), source),
        false => Ok(name),
    }
}

fn is_qualified(id: &str) -> bool {
    id.contains(['/', '='])
}

/// `amd.com/gpu=0,1` could mean GPU 1 of either vendor.
fn agree(list: &[(&str, Source)], devices: &[Asked], kind: &str) -> Result<(), RequestError> {
    let Some((id, source)) = list.iter().find(|(id, _)| !is_qualified(id)) else {
        return Ok(());
    };
    match devices.iter().find(|asked| asked.name.kind() != kind) {
        None => Ok(()),
        Some(other) => Err(RequestError::MixedKinds {
            origin: source.clone(),
            id: (*id).to_owned(),
            kind: other.name.kind().to_owned(),
            default_kind: kind.to_owned(),
        }),
    }
}
