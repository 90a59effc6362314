//! A session keyring of the container's own, so that it does not share the caller's keys.

use std::ffi::CString;

use crate::create::CreateRequest;
use crate::error::{Error, Result, errno_text};
use crate::record::Container;
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
    match process::join_session_keyring(&name) {
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
