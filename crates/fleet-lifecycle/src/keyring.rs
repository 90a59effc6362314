//! A session keyring of the container's own, so that it does not share the caller's keys.

use std::ffi::CString;

use crate::create::CreateRequest;
use crate::error::{Error, Result, errno_text};
use crate::labels::{LabelError, label_keys};
use crate::record::Container;
use crate::spec;
use crate::sys::process;

/// Joins a new session keyring, inherited by the container.
///
/// # Errors
/// Never for a kernel or sandbox without keyrings, as with the peers.
pub(crate) fn join(request: &CreateRequest<'_>, container: &Container) -> Result<()> {
    if request.no_new_keyring {
        return Ok(());
    }
    let name = CString::new(format!("_ses.{}", container.record.id))
        .map_err(|_| Error::Invalid("id contains NUL".to_owned()))?;
    // Of another label the container could not read its own keys.
    let label = spec::text(&request.spec, "/process/selinuxLabel").filter(|text| !text.is_empty());
    let set = |label| label_keys(label).map_err(|err: LabelError| Error::Setup(err.to_string()));
    label.map_or(Ok(()), |label| set(Some(label)))?;
    let joined = process::join_session_keyring(&name);
    label.map_or(Ok(()), |_| set(None))?;
    match joined {
        Ok(()) => Ok(()),
        Err(err)
            if matches!(
                err.raw_os_error(),
                Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EDQUOT)
            ) =>
        {
            Ok(())
        }
        Err(err) => Err(Error::Setup(format!(
            "create a session keyring: {}",
            errno_text(&err)
        ))),
    }
}
