//! `hook`: what NVIDIA's hook programs do, for containers of other runtimes.
//!
//! A runtime starts it as a `createContainer` hook, in the container's mount namespace, its root not changed yet. The
//! edits are those that `create` makes for a container of our own.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use fleet_discover::Live;
use fleet_host::{Container, Env, MissingNodes, Store};
use fleet_lifecycle::Error;
use fleet_rootfs::{
    HookProgram, NO_MEMORY_LIMITS, RootfsEdit, STATE_FLAGS, asks_for_memory_limits, recognise,
};

use super::{Context, Done, create, inject};

/// Flags of NVIDIA's programs before `hook`, which say nothing here.
const SWITCHES: [&str; 6] = ["--debug", "-debug", "-d", "--quiet", "-quiet", "-q"];

/// A link by the name of NVIDIA's programs takes their arguments: CDI specs name them.
pub(crate) fn as_verb(args: Vec<OsString>) -> Vec<OsString> {
    let called = args.first().and_then(|name| Path::new(name).file_name());
    let rest = match called.and_then(|name| name.to_str()) {
        Some("nvidia-cdi-hook") => args.get(1..),
        Some("nvidia-ctk") => {
            let is_switch = |arg: &&OsString| SWITCHES.iter().any(|switch| arg == switch);
            let skipped = args.iter().skip(1).take_while(is_switch).count();
            match args.get(1 + skipped) {
                Some(verb) if verb == "hook" => args.get(2 + skipped..),
                _ => None,
            }
        }
        _ => None,
    };
    match rest {
        Some(rest) => ["fleet-nvidia", "hook"]
            .map(OsString::from)
            .into_iter()
            .chain(rest.iter().cloned())
            .collect(),
        None => args,
    }
}

pub(super) fn hook(context: &Context, args: &[String]) -> Result<Done, Error> {
    if let [name] = args
        && name == "precreate"
    {
        return precreate(context);
    }
    // The container's other processes may see this one.
    create::protect()?;
    let called = ["fleet-nvidia".to_owned(), "hook".to_owned()];
    let program = recognise("fleet-nvidia", &[&called[..], args].concat());
    match program.map_err(|err| Error::Invalid(err.to_string()))? {
        HookProgram::Native(edits) => apply(context, &edits, &container(args)?)?,
        HookProgram::MemoryLimits => {
            let env = container(args)?.env().map_err(invalid)?;
            if asks_for_memory_limits(env.iter().map(String::as_str)) {
                return Err(Error::Invalid(NO_MEMORY_LIMITS.to_owned()));
            }
        }
        HookProgram::UnknownNvidiaHook { name } if name.is_empty() => {
            context.log.say("no hook is named");
        }
        // As NVIDIA's programs do: a spec made by a newer toolkit starts its containers.
        HookProgram::UnknownNvidiaHook { name } => context
            .log
            .say(&format!("hook \"{name}\" is not known: nothing is done")),
        HookProgram::Foreign => return Err(Error::Invalid("it is not a hook".to_owned())),
    }
    Ok(Done::Silent)
}

fn invalid(err: impl std::fmt::Display) -> Error {
    Error::Invalid(err.to_string())
}

fn apply(context: &Context, edits: &[RootfsEdit], container: &Container) -> Result<(), Error> {
    if edits.is_empty() {
        return Ok(());
    }
    let root = container.root().map_err(invalid)?;
    let done = fleet_rootfs::apply_below(root.as_fd(), edits);
    let done = done.map_err(|err| Error::Setup(err.to_string()))?;
    done.notes.iter().for_each(|note| context.log.debug(note));
    Ok(())
}

/// The container whose state is on stdin, or in the file that every hook can be told.
fn container(args: &[String]) -> Result<Container, Error> {
    match state_file(args).as_deref() {
        None | Some("" | "-") => Container::read(std::io::stdin().lock()),
        Some(path) => {
            let file = File::open(path).map_err(|source| Error::Io {
                op: format!("open `{path}`"),
                source,
            })?;
            Container::read(file)
        }
    }
    .map_err(invalid)
}

fn state_file(args: &[String]) -> Option<String> {
    let mut found = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let name = arg.trim_start_matches('-');
        match name.split_once('=') {
            _ if !arg.starts_with('-') => {}
            Some((name, value)) if STATE_FLAGS.contains(&name) => found = Some(value.to_owned()),
            None if STATE_FLAGS.contains(&name) => found = args.next().cloned(),
            _ => {}
        }
    }
    found
}

/// Podman's stage of that name: the spec comes on stdin, and what is printed takes its place.
fn precreate(context: &Context) -> Result<Done, Error> {
    let spec = fleet_host::read_object(std::io::stdin().lock());
    let mut spec = spec.map_err(|why| Error::Invalid(format!("the spec on stdin {why}")))?;
    let program = std::env::current_exe().map_err(|source| Error::Io {
        op: "read our own path".to_owned(),
        source,
    })?;
    let env: Env = inject::env(context);
    let program = program.display().to_string();
    let host = Live::default()
        .keeping(Store::of(&env))
        .with_missing_nodes(MissingNodes::at_create(&env));
    let outcome = fleet_host::precreate(&mut spec, &env, &host, &program);
    for warning in &outcome.map_err(invalid)?.warnings {
        context.log.say(warning);
    }
    Ok(Done::Text(spec.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn by_the_names_of_nvidias_programs() {
        for (line, want) in [
            (
                "/usr/bin/nvidia-cdi-hook create-symlinks --link a::/b",
                "fleet-nvidia hook create-symlinks --link a::/b",
            ),
            ("nvidia-cdi-hook", "fleet-nvidia hook"),
            (
                "nvidia-cdi-hook --debug chmod",
                "fleet-nvidia hook --debug chmod",
            ),
            ("nvidia-ctk hook chmod", "fleet-nvidia hook chmod"),
            (
                "/x/nvidia-ctk --quiet -d hook --debug chmod",
                "fleet-nvidia hook --debug chmod",
            ),
            ("nvidia-ctk cdi list", "nvidia-ctk cdi list"),
            ("fleet-nvidia hook chmod", "fleet-nvidia hook chmod"),
            ("fleet-nvidia state x", "fleet-nvidia state x"),
            ("", ""),
        ] {
            assert_eq!(as_verb(words(line)), words(want), "{line}");
        }
    }

    #[test]
    fn where_the_state_is() {
        for (line, want) in [
            ("chmod --container-spec /x --mode 1", Some("/x")),
            ("chmod --container-spec=/x", Some("/x")),
            ("chmod -containerSpec -", Some("-")),
            ("chmod --mode container-spec", None),
            ("chmod --container-spec", None),
        ] {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(state_file(&args).as_deref(), want, "{line}");
        }
    }
}
