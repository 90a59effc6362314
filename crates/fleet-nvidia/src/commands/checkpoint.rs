//! `checkpoint`.

use fleet_host::EventKind;
use fleet_lifecycle::Error;
use fleet_lifecycle::checkpoint::CheckpointRequest;
use fleet_lifecycle::criu::Options;

use super::{Context, Done, audit};
use crate::cli::{Checkpoint, Refused, Saved};

pub(super) fn checkpoint(context: &Context, args: &Checkpoint) -> Result<Done, Error> {
    refuse("checkpoint", &args.refused, &args.saved)?;
    let request = CheckpointRequest {
        root: &context.root,
        who: &context.who,
        id: &args.id,
        images: &args.saved.image_path,
        work: args.saved.work_path.as_deref(),
        parent: args.parent_path.as_deref(),
        memory_only: args.pre_dump,
        leave_running: args.leave_running,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        options: options(&args.saved),
    };
    if let Some(ended) = fleet_lifecycle::checkpoint::checkpoint(&request)? {
        audit::tell(context, &ended, EventKind::Delete);
    }
    Ok(Done::Silent)
}

/// What both verbs ask CRIU for.
pub(super) fn options(saved: &Saved) -> Options {
    Options {
        tcp_established: saved.tcp_established,
        file_locks: saved.file_locks,
        ext_unix_sk: saved.ext_unix_sk,
        shell_job: saved.shell_job,
        auto_dedup: saved.auto_dedup,
    }
}

/// Options that would otherwise be without effect.
pub(super) fn refuse(verb: &str, refused: &Refused, saved: &Saved) -> Result<(), Error> {
    let all = [
        ("lazy-pages", refused.lazy_pages),
        ("status-fd", refused.status_fd.is_some()),
        ("page-server", refused.page_server.is_some()),
        ("empty-ns", refused.empty_ns.is_some()),
        ("network-lock", refused.network_lock.is_some()),
        ("lsm-profile", refused.lsm_profile.is_some()),
        ("lsm-mount-context", refused.lsm_mount_context.is_some()),
    ];
    if let Some((option, _)) = all.iter().find(|(_, given)| *given) {
        return Err(Error::Invalid(format!(
            "`--{option}` of `{verb}` is not supported"
        )));
    }
    match saved.manage_cgroups_mode.as_deref() {
        None | Some("ignore") => Ok(()),
        Some(mode) => Err(Error::Invalid(format!(
            "`--manage-cgroups-mode {mode}` of `{verb}` is not supported: the runtime makes the cgroup, CRIU does not; hint: leave it out"
        ))),
    }
}
