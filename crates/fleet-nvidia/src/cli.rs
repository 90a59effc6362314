//! What was typed: the same grammar as crun and runc, so that engines need not know the difference.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

/// Outcome of reading the arguments.
pub(crate) enum Parsed {
    /// A verb to run.
    Run(Box<Command>),
    /// Help or version: print and succeed.
    Text(String),
    /// What is wrong with the arguments, one line.
    Usage(String),
}

/// OCI runtime with CDI device injection, compatible with crun and runc.
#[derive(Parser, Debug)]
#[command(
    name = "fleet-nvidia",
    disable_version_flag = true,
    args_override_self = true,
    disable_help_subcommand = true
)]
pub(crate) struct Command {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// Options before the verb; each may be given several times, the last wins (conmon-rs doubles them).
#[derive(Args, Debug, Clone)]
pub(crate) struct Global {
    /// State root (default: /run/fleet-nvidia, rootless $XDG_RUNTIME_DIR/fleet-nvidia)
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Append the fatal error to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<String>,
    /// Format of the log
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub(crate) log_format: String,
    /// Least severe records that are logged
    #[arg(long, value_name = "LEVEL", value_parser = ["debug", "info", "warning", "warn", "error"])]
    pub(crate) log_level: Option<String>,
    /// Log every decision
    #[arg(long)]
    pub(crate) debug: bool,
    /// Let systemd manage cgroups
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Who manages cgroups
    #[arg(long, value_name = "MANAGER", value_parser = ["cgroupfs", "systemd", "disabled"])]
    pub(crate) cgroup_manager: Option<String>,
    /// Rootless mode; detected, accepted for compatibility
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = ["true", "false", "auto"])]
    pub(crate) rootless: Option<String>,
    /// Configuration file (default: /etc/fleet-nvidia/config.toml)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the version
    #[arg(long, short = 'v')]
    pub(crate) version: bool,
}

// The options of the verb that is called alone are laid out: those of all of them are more memory than the rest of a call.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Verb {
    /// Create a container; its program waits for `start`
    Create(Create),
    /// Run the program of a created container
    Start(Id),
    /// Print the state of a container as JSON
    State(Id),
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Remove a container
    Delete(Delete),
    /// Create and start a container, and wait for it
    Run(Run),
    /// Run one more process in a container
    Exec(Exec),
    /// List the processes of a container
    Ps(Ps),
    /// List containers
    List(List),
    /// Freeze a container
    Pause(Id),
    /// Thaw a container
    Resume(Id),
    /// Change the resource limits of a container
    Update(Box<Update>),
    /// Print resource statistics and OOM events
    Events(Events),
    /// Print what this runtime supports as JSON
    Features,
    /// Write a spec template
    Spec(Spec),
    /// Do the work of an NVIDIA hook for a container of another runtime
    Hook(Hook),
    /// Save the processes of a container, with CRIU
    Checkpoint(Checkpoint),
    /// Revive the processes of a container from a checkpoint, with CRIU
    Restore(Restore),
}

#[derive(Args, Debug)]
pub(crate) struct Id {
    /// Container id
    pub(crate) id: String,
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) common: Making,
    /// Accepted for compatibility: create always detaches
    #[arg(long, short = 'd', hide = true)]
    pub(crate) detach: bool,
    /// Container id
    pub(crate) id: String,
}

// Options shared by `create`, `run` and `restore`; a doc comment would become the verb's.
#[derive(Args, Debug)]
pub(crate) struct Making {
    /// Bundle directory
    #[arg(long, short = 'b', value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Spec file, relative to the bundle
    #[arg(long, short = 'f', value_name = "FILE", default_value = "config.json")]
    pub(crate) config: PathBuf,
    /// Unix socket that receives the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Unix socket that receives a descriptor of the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// File that receives the pid
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Use MS_MOVE instead of pivot_root
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Number of descriptors from 3 up to pass on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) common: Making,
    /// Do not wait for the container
    #[arg(long, short = 'd')]
    pub(crate) detach: bool,
    /// Keep the container after it ended
    #[arg(long)]
    pub(crate) keep: bool,
    /// Accepted for compatibility
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    /// Container id
    pub(crate) id: String,
}

#[derive(Args, Debug)]
pub(crate) struct Kill {
    /// Signal every process of the container
    #[arg(long, short = 'a')]
    pub(crate) all: bool,
    /// The id is a regular expression: every container that it matches
    #[arg(long, short = 'r')]
    pub(crate) regex: bool,
    /// Container id
    pub(crate) id: String,
    /// Name or number
    #[arg(default_value = "TERM")]
    pub(crate) signal: String,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Kill a running container first; an unknown one is no error
    #[arg(long, short = 'f')]
    pub(crate) force: bool,
    /// The id is a regular expression: every container that it matches
    #[arg(long, short = 'r')]
    pub(crate) regex: bool,
    /// Container id
    pub(crate) id: String,
}

#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// JSON file with a process object
    #[arg(long, short = 'p', value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Do not wait for the process
    #[arg(long, short = 'd')]
    pub(crate) detach: bool,
    /// Unix socket that receives a descriptor of the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// File that receives the pid
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Unix socket that receives the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Allocate a terminal
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Number of descriptors from 3 up to pass on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Environment variable NAME=VALUE
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// User, UID[:GID]
    #[arg(long, short = 'u', value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Supplementary group
    #[arg(long, short = 'g', value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// Additional capability
    #[arg(long, short = 'c', value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Cgroup below the container's own, for some controllers only on cgroup v1
    #[arg(long, value_name = "[CONTROLLER,...:]PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Go on in a paused container
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Container id
    pub(crate) id: String,
    /// Program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Output format
    #[arg(long, short = 'f', default_value = "table", value_parser = ["table", "json"])]
    pub(crate) format: String,
    /// Container id
    pub(crate) id: String,
    /// Options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Output format
    #[arg(long, short = 'f', default_value = "table", value_parser = ["table", "json"])]
    pub(crate) format: String,
    /// Print ids only
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    /// JSON file with a LinuxResources object, `-` for stdin
    #[arg(long, short = 'r', value_name = "FILE")]
    pub(crate) resources: Option<String>,
    /// Block IO weight
    #[arg(long, value_name = "N")]
    pub(crate) blkio_weight: Option<u64>,
    /// CPU CFS period, microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_period: Option<u64>,
    /// CPU CFS quota, microseconds; -1 for none
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPU CFS burst, microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_burst: Option<u64>,
    /// CPU realtime period, microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// CPU realtime runtime, microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// CPU shares (`--cpu-share` is runc's older spelling)
    #[arg(long, alias = "cpu-share", value_name = "N")]
    pub(crate) cpu_shares: Option<u64>,
    /// CPU idle class, 0 or 1
    #[arg(long, value_name = "N")]
    pub(crate) cpu_idle: Option<i64>,
    /// CPUs
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Memory limit, bytes; -1 for none
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Memory reservation, bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    /// Memory and swap limit, bytes; -1 for none
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Accepted for compatibility: kernels no longer limit their own memory apart
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, hide = true)]
    pub(crate) kernel_memory: Option<String>,
    /// Accepted for compatibility
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, hide = true)]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// Shares of the L3 cache, such as L3:0=f;1=f0
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) l3_cache_schema: Option<String>,
    /// Shares of memory bandwidth, such as MB:0=20;1=70
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) mem_bw_schema: Option<String>,
    /// Process limit; -1 for none
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Container id
    pub(crate) id: String,
}

#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Print once
    #[arg(long)]
    pub(crate) stats: bool,
    /// Time between two prints, such as 5s, 1m or 500ms
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    pub(crate) interval: String,
    /// Container id
    pub(crate) id: String,
}

#[derive(Args, Debug)]
pub(crate) struct Spec {
    /// Directory to write to
    #[arg(long, short = 'b', value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// For an unprivileged user
    #[arg(long)]
    pub(crate) rootless: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    pub(crate) saved: Saved,
    /// Earlier checkpoint, relative to the image directory
    #[arg(long, value_name = "DIR")]
    pub(crate) parent_path: Option<String>,
    /// Save memory only, ahead of the checkpoint; the container runs on
    #[arg(long)]
    pub(crate) pre_dump: bool,
    /// Let the container run on
    #[arg(long, short = 'R')]
    pub(crate) leave_running: bool,
    /// Leave half-open TCP connections out
    #[arg(long)]
    pub(crate) tcp_skip_in_flight: bool,
    /// Save files that are open and have no name any more
    #[arg(long)]
    pub(crate) link_remap: bool,
    #[command(flatten)]
    pub(crate) refused: Refused,
    /// Container id
    pub(crate) id: String,
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) common: Making,
    #[command(flatten)]
    pub(crate) saved: Saved,
    /// Do not wait for the container
    #[arg(long, short = 'd')]
    pub(crate) detach: bool,
    /// Close saved TCP connections
    #[arg(long)]
    pub(crate) tcp_close: bool,
    /// Accepted for compatibility
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    #[command(flatten)]
    pub(crate) refused: Refused,
    /// Container id
    pub(crate) id: String,
}

// Options shared by `checkpoint` and `restore`; a doc comment would become the verb's.
#[derive(Args, Debug)]
pub(crate) struct Saved {
    /// Directory of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub(crate) image_path: PathBuf,
    /// Directory of CRIU's log (default: that of the images)
    #[arg(long, value_name = "DIR")]
    pub(crate) work_path: Option<PathBuf>,
    /// Established TCP connections, too
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// File locks, too
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// Unix sockets whose other end is outside
    #[arg(long)]
    pub(crate) ext_unix_sk: bool,
    /// A job that was started from a shell outside
    #[arg(long)]
    pub(crate) shell_job: bool,
    /// Remove memory from an earlier checkpoint that this one has as well
    #[arg(long)]
    pub(crate) auto_dedup: bool,
    /// Accepted for compatibility: CRIU leaves cgroups to the runtime
    #[arg(long, value_name = "MODE", hide = true)]
    pub(crate) manage_cgroups_mode: Option<String>,
}

// Options of other runtimes that are refused by name, with or without a value; a doc comment would become the verb's, too.
#[derive(Args, Debug)]
pub(crate) struct Refused {
    #[arg(long, hide = true)]
    pub(crate) lazy_pages: bool,
    #[arg(long, hide = true, num_args = 0..=1)]
    pub(crate) status_fd: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    pub(crate) page_server: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    pub(crate) empty_ns: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    pub(crate) network_lock: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    pub(crate) lsm_profile: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1)]
    pub(crate) lsm_mount_context: Option<Option<String>>,
}

#[derive(Args, Debug)]
pub(crate) struct Hook {
    /// `precreate`, or a hook of `nvidia-cdi-hook` and its arguments; the container's state is read from stdin
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Reads the arguments, the program's name included.
pub(crate) fn parse(args: Vec<OsString>) -> Parsed {
    let dashed = args.iter().any(|arg| arg == NO_SUBREAPER);
    let other = dashed.then(|| args.clone());
    match (parsed(args), other) {
        // Elsewhere it may be a word of the program's.
        (Parsed::Usage(_), Some(mut args)) => {
            for arg in args.iter_mut().filter(|arg| *arg == NO_SUBREAPER) {
                *arg = format!("-{NO_SUBREAPER}").into();
            }
            parsed(args)
        }
        (done, _) => done,
    }
}

/// How containerd writes this option of `restore`.
const NO_SUBREAPER: &str = "-no-subreaper";

fn parsed(args: Vec<OsString>) -> Parsed {
    match Command::try_parse_from(args) {
        Ok(command) => Parsed::Run(Box::new(command)),
        Err(err)
            if matches!(
                err.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            Parsed::Text(err.to_string())
        }
        Err(err) => Parsed::Usage(one_line(&err.to_string())),
    }
}

/// clap explains over several lines; engines show one.
fn one_line(text: &str) -> String {
    let parts = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let joined = parts.collect::<Vec<_>>().join("; ");
    joined
        .trim_start_matches("error: ")
        .replace("; Usage:", "; usage:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        match parse(line.split_whitespace().map(OsString::from).collect()) {
            Parsed::Run(command) => *command,
            Parsed::Text(text) | Parsed::Usage(text) => panic!("{line}: {text}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Command::command().debug_assert();
    }

    #[test]
    fn argv_of_the_engines() {
        for line in [
            "fleet-nvidia --log-format=json --log /l create --bundle /b --pid-file /p 0123",
            "fleet-nvidia --root=/r --systemd-cgroup --root=/r --systemd-cgroup create --bundle /b --pid-file /p --console-socket=/s id",
            "fleet-nvidia --root /r --log /l --log-format json create --bundle /b --pid-file /p --no-pivot --no-new-keyring id",
            "fleet-nvidia --cgroup-manager disabled create --bundle=/b --preserve-fds 2 id",
            "fleet-nvidia --rootless=true --debug exec --pid-file /p --process /f --detach --tty id",
            "fleet-nvidia exec -d --console-socket=/s --tty --pid-file=/p id sh -c exit",
            "fleet-nvidia exec --process /f id",
            "fleet-nvidia kill --all id 9",
            "fleet-nvidia kill id",
            "fleet-nvidia ps --format json id",
            "fleet-nvidia events --stats --interval=5s id",
            "fleet-nvidia update --resources - id",
            "fleet-nvidia update --resources=/f id",
            "fleet-nvidia update --memory-swap -1 --cpu-quota -1 id",
            "fleet-nvidia list --format=json --quiet",
            "fleet-nvidia delete --force id",
            "fleet-nvidia run -d --keep --no-subreaper id",
            "fleet-nvidia --config /x hook precreate",
            "fleet-nvidia hook --debug create-symlinks --link a::/b",
            "fleet-nvidia checkpoint --file-locks --image-path /i --work-path=/w --leave-running id",
            "fleet-nvidia checkpoint --image-path /i --work-path /b --leave-running --tcp-established --pre-dump --parent-path ../pre-checkpoint id",
            "fleet-nvidia restore --bundle /b --pid-file /p --detach --image-path /i --work-path /b --tcp-established --file-locks --console-socket /s id",
            "fleet-nvidia restore --image-path /i --work-path /w --detach --pid-file /p --no-pivot -no-subreaper --bundle /b id",
            "fleet-nvidia restore --lsm-profile=selinux:x --lsm-mount-context=y id",
            "fleet-nvidia --version",
        ] {
            command(line);
        }
    }

    #[test]
    fn doubled_options_take_the_last_value() {
        let got = command("fleet-nvidia --root /a --root=/b --log x --log y state id");
        assert_eq!(got.global.root, Some("/b".into()));
        assert_eq!(got.global.log.as_deref(), Some("y"));
    }

    #[test]
    fn exec_stops_reading_options_at_the_id() {
        let Some(Verb::Exec(exec)) = command("fleet-nvidia exec -t id ls -l --root").verb else {
            panic!()
        };
        assert_eq!(exec.args, ["ls", "-l", "--root"]);
        assert!(exec.tty);
    }

    /// Podman and CRI-O take the help for a sign that they may checkpoint, and the second for one that pods can be
    /// restored, which needs labels.
    #[test]
    fn what_engines_ask_to_learn_what_is_supported() {
        let parsed = |line: &str| parse(line.split_whitespace().map(OsString::from).collect());
        assert!(matches!(
            parsed("fleet-nvidia checkpoint --help"),
            Parsed::Text(_)
        ));
        match parsed("fleet-nvidia restore --lsm-mount-context") {
            Parsed::Usage(text) => assert!(!text.contains("an argument"), "{text}"),
            _ => panic!("an id is needed"),
        }
    }

    #[test]
    fn words_of_a_program_stay_what_they_are() {
        let line = "fleet-nvidia exec id restore -no-subreaper";
        match command(line).verb {
            Some(Verb::Exec(exec)) => assert_eq!(exec.args, ["restore", "-no-subreaper"]),
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn the_help_of_a_verb_begins_with_what_it_does() {
        let parsed = |line: &str| parse(line.split_whitespace().map(OsString::from).collect());
        let Parsed::Text(all) = parsed("fleet-nvidia --help") else {
            panic!("no help");
        };
        let verbs = all.lines().skip_while(|line| *line != "Commands:").skip(1);
        let mut count = 0;
        for line in verbs.take_while(|line| !line.is_empty()) {
            let (verb, what) = line.trim().split_once(' ').unwrap();
            match parsed(&format!("fleet-nvidia {verb} --help")) {
                Parsed::Text(help) => assert_eq!(help.lines().next(), Some(what.trim()), "{verb}"),
                _ => panic!("{verb} has no help"),
            }
            count += 1;
        }
        assert!(count > 15, "{all}");
    }

    #[test]
    fn unknown_options_fail_in_one_line() {
        for line in [
            "fleet-nvidia --nope state id",
            "fleet-nvidia create --nope id",
            "fleet-nvidia moon",
        ] {
            match parse(line.split_whitespace().map(OsString::from).collect()) {
                Parsed::Usage(text) => assert!(!text.contains('\n'), "{text}"),
                _ => panic!("{line} was accepted"),
            }
        }
    }
}
