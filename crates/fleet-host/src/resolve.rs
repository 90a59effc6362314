//! From what is asked for to edits: CDI specs first, then what follows from the host.

use fleet_cdi::{Registry, SourcedEdits};
use fleet_inject::{Asked, Request};

use crate::inject::{Host, InjectError};
use crate::{inherent, none};

/// The edits of all devices: those of CDI specs first, then those that follow from what the host has.
pub(crate) fn resolve(
    request: &Request,
    registry: &Registry,
    host: &dyn Host,
    warnings: &mut Vec<String>,
) -> Result<Vec<SourcedEdits>, InjectError> {
    let is_inherent =
        |asked: &&Asked| inherent::is_known(&asked.name) && registry.spec_of(&asked.name).is_none();
    let (must, listed): (Vec<&Asked>, Vec<&Asked>) = request.devices.iter().partition(is_inherent);
    let (may, optional): (Vec<&Asked>, Vec<&Asked>) = request.extras.iter().partition(is_inherent);
    let names = listed.into_iter().chain(optional);
    let names: Vec<_> = names.map(|asked| asked.name.clone()).collect();
    let mut resolved = match &request.none_kind {
        Some(none) => none::resolve(registry, &none.kind)?,
        None => Vec::new(),
    };
    resolved.extend(registry.resolve(&names)?);
    for asked in must {
        let edits = inherent::edits(&asked.name, host).map_err(|why| InjectError::Absent {
            name: asked.name.to_string(),
            origin: asked.source.clone(),
            why,
        })?;
        resolved.push(edits);
    }
    for asked in may {
        match inherent::edits(&asked.name, host) {
            Ok(edits) => resolved.push(edits),
            Err(why) => warnings.push(format!("{} has no effect: {why}", asked.source)),
        }
    }
    Ok(resolved)
}
