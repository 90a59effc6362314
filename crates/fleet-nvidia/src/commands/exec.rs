//! `exec`.

use std::path::Path;

use fleet_lifecycle::exec::ExecRequest;
use fleet_lifecycle::foreground::{self, Relay, Signals};
use fleet_lifecycle::record::Container;
use fleet_lifecycle::sys::process as own_process;
use fleet_lifecycle::{Error, preserve, spec};
use serde_json::{Value, json};

use super::{Context, Done, create, delegated};
use crate::cli::Exec;

pub(super) fn exec(context: &Context, args: &Exec) -> Result<Done, Error> {
    delegated::become_exec(context, &context.container(&args.id)?)?;
    create::protect()?;
    let preserve_fds = create::kept(args.preserve_fds);
    preserve::take_range(preserve_fds)?;
    let container = context.container(&args.id)?;
    let mut process = process(&container, args)?;
    let terminal = spec::flag(&process, "/terminal");
    let ours_to_relay = terminal && args.console_socket.is_none() && !args.detach;
    if terminal && args.detach && args.console_socket.is_none() {
        return Err(Error::Invalid(
            "a detached process with a terminal needs `--console-socket`".to_owned(),
        ));
    }
    if !terminal {
        // conmon before 2.1.11 sends `--tty` beside a process file; the file decides.
        process["terminal"] = json!(false);
    }
    if ours_to_relay {
        foreground::size_console(&mut process);
    }
    let (ours, console) = match ours_to_relay {
        true => foreground::console_pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
        false => (
            None,
            create::connect(args.console_socket.as_deref().filter(|_| terminal))?,
        ),
    };
    let signals = if args.detach {
        None
    } else {
        Some(Signals::hold()?)
    };
    let mut holder = json!({"process": process});
    create::name_listen_fds(&mut holder);
    own_process::clear_environment();
    let request = ExecRequest {
        root: &context.root,
        who: &context.who,
        process: holder["process"].take(),
        pid_file: args.pid_file.clone(),
        console,
        preserve_fds,
        ignore_paused: args.ignore_paused,
        sub_cgroups: args.cgroup.clone(),
    };
    let pidfd = create::pidfd_socket(args.pidfd_socket.as_deref())?;
    let pid = fleet_lifecycle::exec::exec(&container, &request)?;
    // It is our child, and not waited for yet.
    pidfd.map_or(Ok(()), |socket| socket.send(pid))?;
    let Some(signals) = signals else {
        return Ok(Done::Silent);
    };
    let relay = ours.as_ref().map(Relay::receive).transpose()?;
    Ok(Done::Code(foreground::wait(pid, signals, relay, None)?))
}

/// The process object: from the file, or the container's own with what was typed put in.
fn process(container: &Container, args: &Exec) -> Result<Value, Error> {
    if let Some(file) = &args.process {
        return from_file(file);
    }
    let mut process = container.spec()?["process"].take();
    if args.args.is_empty() {
        return Err(Error::Invalid(
            "exec needs a program to run or `--process FILE`".to_owned(),
        ));
    }
    process["args"] = json!(args.args);
    process["terminal"] = json!(args.tty);
    if let Some(cwd) = &args.cwd {
        process["cwd"] = json!(cwd);
    }
    set_env(&mut process, &args.env);
    if let Some(user) = &args.user {
        set_user(&mut process, user)?;
    }
    if !args.additional_gids.is_empty() {
        process["user"]["additionalGids"] = json!(args.additional_gids);
    }
    add_capabilities(&mut process, &args.cap);
    if args.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    if let Some(label) = &args.process_label {
        process["selinuxLabel"] = json!(label);
    }
    if let Some(profile) = &args.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    Ok(process)
}

/// As runc: never inheritable (CVE-2022-29162), and ambient, which cannot be had without that, only where the
/// container's own process has inheritable ones.
fn add_capabilities(process: &mut Value, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let inheritable = !spec::list(process, "/capabilities/inheritable").is_empty();
    for (set, wanted) in [
        ("bounding", true),
        ("effective", true),
        ("permitted", true),
        ("ambient", inheritable),
    ] {
        if !wanted {
            continue;
        }
        if process["capabilities"][set].is_null() {
            process["capabilities"][set] = json!([]);
        }
        append(process, &format!("/capabilities/{set}"), names);
    }
}

/// A variable that was typed takes the place of the container's own.
fn set_env(process: &mut Value, entries: &[String]) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    if let Some(env) = process.get_mut("env").and_then(Value::as_array_mut) {
        let typed: Vec<String> = entries.iter().map(|entry| name(entry)).collect();
        env.retain(|entry| !entry.as_str().is_some_and(|e| typed.contains(&name(e))));
    }
    append(process, "/env", entries);
}

fn append(process: &mut Value, pointer: &str, values: &[String]) {
    if let Some(list) = process.pointer_mut(pointer).and_then(Value::as_array_mut) {
        list.extend(values.iter().map(|value| json!(value)));
    } else if !values.is_empty() {
        process[pointer.trim_start_matches('/')] = json!(values);
    }
}

fn set_user(process: &mut Value, user: &str) -> Result<(), Error> {
    let (uid, gid) = user
        .split_once(':')
        .map_or((user, None), |(uid, gid)| (uid, Some(gid)));
    let number = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| Error::Invalid(format!("`--user {user}` is not UID[:GID] in numbers")))
    };
    process["user"]["uid"] = json!(number(uid)?);
    if let Some(gid) = gid {
        process["user"]["gid"] = json!(number(gid)?);
    }
    Ok(())
}

fn from_file(path: &Path) -> Result<Value, Error> {
    let process = spec::load(path)?;
    if process.is_object() {
        return Ok(process);
    }
    Err(Error::Invalid(format!(
        "`{}` does not hold a process object",
        path.display()
    )))
}
