//! Terminals and the foreground.

use super::*;

/// Runs under a pseudo terminal made by script(1).
fn under_terminal(bundle: &Bundle, args: &[&str]) -> String {
    let words = [
        bundle.runtime.binary.to_str().expect("text"),
        "--root",
        bundle.runtime.root.to_str().expect("text"),
    ];
    let line = [&words[..], args].concat().join(" ");
    let out = run(Command::new("script").args(["-qec", &line, "/dev/null"]));
    assert_eq!(out.code, 0, "{out:#?}");
    // What script(1) itself types at the end of its own input.
    out.stdout.replace('\r', "").replace("^@", "")
}

#[test]
fn foreground_terminal() {
    let script = "test -t 0 && test -t 1 && test -t 2 && tty; exit 0";
    let bundle = Bundle::new(script).set("/process/terminal", json!(true));
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let text = under_terminal(&bundle, &["run", "--bundle", &dir, &bundle.id]);
    assert_eq!(text, "/dev/pts/0\n");
}

#[test]
fn foreground_terminal_of_exec() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let text = under_terminal(&bundle, &["exec", "-t", &bundle.id, "tty"]);
    assert_eq!(text, "/dev/pts/0\n");
    // What is written just before the end must not be lost.
    let text = under_terminal(&bundle, &["exec", "-t", &bundle.id, "seq", "5000"]);
    assert_eq!(text.lines().count(), 5000);
}

#[test]
fn foreground_passes_signals_on() {
    let bundle =
        Bundle::new("trap 'exit 42' TERM; echo ready > /ready; while :; do sleep 0.05; done");
    bundle.write();
    let dir = bundle.dir.display().to_string();
    let mut child = bundle
        .runtime
        .command(&["run", "--bundle", &dir, &bundle.id])
        .stdin(Stdio::null())
        .spawn()
        .expect("spawn");
    until("the trap", || bundle.dir.join("rootfs/ready").exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(42));
    assert_nothing_left(&bundle);
}

/// A container that ends at once must not be waited for after its end.
#[test]
fn short_runs_end() {
    let bundle = Bundle::new("").set("/process/args", json!(["/bin/true"]));
    for _ in 0..30 {
        assert_eq!(bundle.run().code, 0);
    }
    assert_nothing_left(&bundle);
}
