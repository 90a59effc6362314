//! One module per verb. Each turns what was typed into one call of the lifecycle.

mod audit;
mod checkpoint;
mod create;
mod delegated;
mod delete;
mod events;
mod exec;
pub(crate) mod hook;
pub(crate) mod hookpoint;
mod inject;
mod kill;
mod list;
mod matching;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use fleet_lifecycle::notify::ServiceManager;
use fleet_lifecycle::panics;
use fleet_lifecycle::pause;
use fleet_lifecycle::record::Container;
use fleet_lifecycle::root::{Identity, StateRoot};
use fleet_lifecycle::sys::process;
use fleet_lifecycle::{Error, features};

use crate::cli::{Command, Global, Verb};
use crate::log::Log;
use crate::output;

/// What every verb needs.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) who: Identity,
    pub(crate) root: StateRoot,
    pub(crate) log: Log,
    /// `NOTIFY_SOCKET`, read before the environment is cleared.
    notify_socket: Option<String>,
}

impl Context {
    fn new(global: Global) -> Self {
        let who = Identity::current();
        let xdg = std::env::var("XDG_RUNTIME_DIR").ok();
        let root = StateRoot::new(global.root.as_deref(), &who, xdg.as_deref());
        let log = Log::new(&global);
        log.listen();
        Self {
            log,
            notify_socket: std::env::var("NOTIFY_SOCKET").ok(),
            who,
            root,
            global,
        }
    }

    /// Who waits to be told that the container is ready.
    pub(crate) fn service_manager(&self) -> Result<Option<ServiceManager>, Error> {
        ServiceManager::named(self.notify_socket.as_deref())
    }

    pub(crate) fn container(&self, id: &str) -> Result<Container, Error> {
        Container::load(&self.root, id)
    }
}

/// `exec` does all from a protected view of the binary. Where it seems to be meant, the binary is executed again before
/// anything else was done in vain; the verb itself makes sure. Not for those that may hand a container on: they tell
/// where the binary lies, which it does not know there.
pub(crate) fn protect_early(args: &[OsString]) {
    let has = |verb: &str| args.iter().any(|arg| arg == verb);
    if has("exec") && !has("create") && !has("run") {
        drop(create::protect());
    }
}

/// How a verb ended well.
pub(crate) enum Done {
    /// Nothing to say.
    Silent,
    /// Text for stdout.
    Text(String),
    /// The exit code of the workload.
    Code(i32),
}

/// Runs the verb and tells a failure in the way engines read.
pub(crate) fn run(command: Command) -> ExitCode {
    let version = command.global.version;
    let context = Context::new(command.global);
    let Some(verb) = command.verb else {
        if version {
            return output::print(&version::text());
        }
        context
            .log
            .fatal("no command given; hint: `fleet-nvidia --help` lists them");
        return ExitCode::FAILURE;
    };
    let exec = matches!(verb, Verb::Exec(_));
    // As runc: 255 tells a failed exec from a command that returned 1.
    let failed = if exec { 255 } else { 1 };
    let log = context.log.clone();
    panics::told_by(move |err| {
        tell(&log, &err);
        process::leave(failed.into())
    });
    match dispatch(&context, verb) {
        Ok(Done::Silent) => ExitCode::SUCCESS,
        Ok(Done::Text(text)) => output::print(&text),
        Ok(Done::Code(code)) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(err) => {
            tell(&context.log, &err);
            ExitCode::from(failed)
        }
    }
}

fn tell(log: &Log, err: &Error) {
    match err {
        Error::Told(text) => log.note_down(text),
        _ => log.fatal(&fleet_lifecycle::error::advised(err.to_string())),
    }
}

fn dispatch(context: &Context, verb: Verb) -> Result<Done, Error> {
    match verb {
        Verb::Create(args) => create::create(context, &args),
        Verb::Start(args) => start::start(context, &args.id),
        Verb::State(args) => state::state(context, &args.id),
        Verb::Kill(args) => kill::kill(context, &args),
        Verb::Delete(args) => delete::delete(context, &args),
        Verb::Run(args) => run::run(context, &args),
        Verb::Exec(args) => exec::exec(context, &args),
        Verb::Ps(args) => ps::ps(context, &args),
        Verb::List(args) => list::list(context, &args),
        Verb::Pause(args) => pause::pause(&context.container(&args.id)?).map(|()| Done::Silent),
        Verb::Resume(args) => pause::resume(&context.container(&args.id)?).map(|()| Done::Silent),
        Verb::Update(args) => update::update(context, &args),
        Verb::Events(args) => events::events(context, &args),
        Verb::Features => Ok(Done::Text(format!("{:#}\n", features::features()))),
        Verb::Spec(args) => spec::spec(&args),
        Verb::Hook(args) => hook::hook(context, &args.args),
        Verb::Checkpoint(args) => checkpoint::checkpoint(context, &args),
        Verb::Restore(args) => restore::restore(context, &args),
    }
}
