//! From what is written to CDI names: bare ids, `all`, `none`, `void`, and NVIDIA's "automatic" vendor.

use fleet_cdi::QualifiedName;

use super::extras::{IMEX_KIND, MIG_KIND};
use super::old_mig::{self, OldMig};
use super::{Asked, KindOnly, RequestError, Source, Wanted, shown};
use crate::capabilities::filter::is_nvidia;

/// NVIDIA's runtime makes devices of this vendor up in memory; here they are those of the CDI specs, or made in memory
/// where no spec has them.
const AUTOMATIC: &str = "runtime.nvidia.com/";
const USUAL_KIND: &str = "nvidia.com/gpu";

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

/// A list of fully qualified names. Bare ids have no meaning there, but NVIDIA's automatic names do.
pub(super) fn annotated(
    list: &[&str],
    kind: &str,
    source: &Source,
) -> Result<Vec<Asked>, RequestError> {
    let mut asked = Vec::with_capacity(list.len());
    let mut rest = list.iter().copied();
    while let Some(text) = rest.next() {
        let name = match text.starts_with(AUTOMATIC) {
            true => named(text, &mut rest, kind, source)?,
            false => qualified(text, source)?,
        };
        let source = source.clone();
        asked.push(Asked { name, source });
    }
    Ok(asked)
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
    let mut rest = list.iter().map(|(id, _)| *id);
    while let Some(id) = rest.next() {
        let source = &list[list.len() - rest.len() - 1].1;
        wanted.devices.push(Asked {
            name: named(id, &mut rest, kind, source)?,
            source: source.clone(),
        });
    }
    agree(list, &wanted.devices, kind)?;
    Ok(wanted)
}

/// One name of a list; what follows in the list may belong to it.
fn named<'a>(
    text: &'a str,
    rest: &mut (impl Iterator<Item = &'a str> + Clone),
    kind: &str,
    source: &Source,
) -> Result<QualifiedName, RequestError> {
    let automatic = text
        .strip_prefix(AUTOMATIC)
        .and_then(|name| name.split_once('='));
    let id = automatic.map_or(text, |(_, id)| id);
    if let Some(mode) = id.strip_prefix("mode=") {
        return of_mode(mode, rest, kind, source);
    }
    if old_mig::is_meant(id) {
        let kind = if automatic.is_some() {
            automatic_kind(kind)
        } else {
            kind
        };
        let old = OldMig::written(id).ok_or_else(|| RequestError::OldMig {
            origin: source.clone(),
            id: shown(id),
        })?;
        return of_kind(kind, &old.to_string(), source);
    }
    match automatic {
        Some(("gpu", id)) => of_kind(automatic_kind(kind), id, source),
        Some((class, id)) => of_kind(&format!("nvidia.com/{class}"), id, source),
        None if is_qualified(text) => qualified(text, source),
        None => of_kind(kind, text, source),
    }
}

/// The default kind, if it is NVIDIA's.
fn automatic_kind(kind: &str) -> &str {
    if is_nvidia(kind) { kind } else { USUAL_KIND }
}

/// `mode=gds` or `mode=imex,id=3`: the generator that NVIDIA's runtime would use, and the device of it.
fn of_mode<'a>(
    text: &'a str,
    rest: &mut (impl Iterator<Item = &'a str> + Clone),
    kind: &str,
    source: &Source,
) -> Result<QualifiedName, RequestError> {
    let (mode, joined) = match text.split_once(",id=") {
        Some((mode, id)) => (mode, Some(id)),
        None => (text, None),
    };
    let next = rest
        .clone()
        .next()
        .and_then(|next| next.strip_prefix("id="));
    let id = joined.or(next);
    if joined.is_none() && next.is_some() {
        rest.next();
    }
    let failed = |why| RequestError::Mode {
        origin: source.clone(),
        mode: shown(mode),
        why,
    };
    let numbered = || id.ok_or_else(|| failed("needs an id"));
    match mode {
        "auto" | "nvml" | "csv" | "wsl" => {
            of_kind(automatic_kind(kind), id.unwrap_or("all"), source)
        }
        "gds" | "mofed" | "gdrcopy" | "nvswitch" => {
            of_kind(&format!("nvidia.com/{mode}"), id.unwrap_or("all"), source)
        }
        "management" => of_kind("management.nvidia.com/gpu", id.unwrap_or("all"), source),
        "imex" => of_kind(IMEX_KIND, numbered()?, source),
        "mig-caps" => of_kind(MIG_KIND, numbered()?, source),
        _ => Err(failed(
            "is not one of auto, nvml, csv, wsl, management, gds, mofed, gdrcopy, nvswitch, imex, mig-caps",
        )),
    }
}

fn is_qualified(id: &str) -> bool {
    id.contains(['/', '=']) && !old_mig::is_meant(id)
}

/// `amd.com/gpu=0,1` could mean GPU 1 of either vendor; `nvidia.com/gds=all,1` can not.
fn agree(list: &[(&str, Source)], devices: &[Asked], kind: &str) -> Result<(), RequestError> {
    let Some((id, source)) = list.iter().find(|(id, _)| !is_qualified(id)) else {
        return Ok(());
    };
    let vendor = kind.split('/').next().unwrap_or_default();
    match devices.iter().find(|asked| asked.name.vendor() != vendor) {
        None => Ok(()),
        Some(other) => Err(RequestError::MixedKinds {
            origin: source.clone(),
            id: (*id).to_owned(),
            kind: other.name.kind().to_owned(),
            default_kind: kind.to_owned(),
        }),
    }
}
