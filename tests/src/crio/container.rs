//! A container of CRI-O: made and watched by conmon, everything else by calls of the runtime.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, recv, socket};
use serde_json::{Value, json};

use super::{Crio, Monitor, clean, log_streams, spec};
use crate::engine::{on_terminal, unpack};
use crate::{Output, cgroup_dirs, cgroup_path, path, run, unique, until};

/// A container and its bundle; both go away with this.
#[derive(Debug)]
pub struct Container<'c> {
    crio: &'c Crio,
    /// Its id.
    pub id: String,
    /// Its spec, written when it is made.
    pub spec: Value,
    /// The bundle; conmon's files are in it, too.
    pub bundle: PathBuf,
}

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit code.
    pub code: i64,
    /// What it printed.
    pub stdout: String,
    /// What it complained about, and conmon's message when it could not be run.
    pub stderr: String,
}

impl<'c> Container<'c> {
    pub(super) fn new(crio: &'c Crio, image: &str, kind: &str, script: &str) -> Self {
        // CRI-O's are 64 hexadecimal digits.
        let unique = unique("");
        let digits = unique
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let id = format!("{digits:0>64}");
        let bundle = crio.dir.join("bundles").join(&id);
        unpack(image, &bundle.join("rootfs"));
        let spec = spec::spec(
            &id,
            kind,
            &bundle.join("rootfs"),
            &cgroup_path("pod"),
            script,
        );
        Self {
            crio,
            id,
            spec,
            bundle,
        }
    }

    pub(super) fn join(&mut self, namespaces: Vec<Value>) {
        let all = self.spec["linux"]["namespaces"]
            .as_array_mut()
            .expect("namespaces");
        all.extend(namespaces);
    }

    pub(super) fn map_users(&mut self, wanted: bool) {
        if wanted {
            let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
            self.spec["linux"]["uidMappings"] = map.clone();
            self.spec["linux"]["gidMappings"] = map;
            let own = ["-R", "200000:200000"];
            drop(
                run(Command::new("chown")
                    .args(own)
                    .arg(self.bundle.join("rootfs")))
                .ok(),
            );
        }
    }

    /// Its log, as the kubelet reads it.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.crio.dir.join("logs").join(&self.id)
    }

    fn file(&self, name: &str) -> String {
        self.bundle.join(name).display().to_string()
    }

    /// Through conmon; the error is what CRI-O puts after `container create failed: `.
    ///
    /// # Errors
    /// The runtime's own line.
    #[track_caller]
    pub fn create(&self) -> Result<i64, String> {
        fs::write(self.bundle.join("config.json"), self.spec.to_string()).expect("write the spec");
        let binary = path("RUNTIME_UNDER_TEST").display().to_string();
        let under = |sub: &str| self.crio.dir.join(sub).display().to_string();
        let root = format!("--root={}", self.crio.root.display());
        let (bundle, log) = (
            self.bundle.display().to_string(),
            self.log().display().to_string(),
        );
        let (exits, attach) = (under("exits"), under("attach"));
        let (conmon_pid, pid) = (self.file("conmon-pidfile"), self.file("pidfile"));
        let mut args = vec![
            "-b",
            &bundle,
            "-c",
            &self.id,
            "--exit-dir",
            &exits,
            "-l",
            &log,
            "--log-level",
            "info",
            "-n",
            "k8s_name",
            "-P",
            &conmon_pid,
            "-p",
            &pid,
            "--persist-dir",
            &bundle,
            "-r",
            &binary,
            "--runtime-arg",
            &root,
            "--socket-dir-path",
            &attach,
            "--syslog",
            "-u",
            &self.id,
            "--log-size-max",
            "-1",
        ];
        if self.spec["process"]["terminal"] == true {
            args.push("-t");
        }
        let said = Monitor::answer(&args, &self.bundle);
        match said["pid"].as_i64() {
            Some(pid) if pid > 0 => Ok(pid),
            _ => Err(said["message"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// `start`.
    #[track_caller]
    pub fn start(&self) {
        self.crio.call(&["start", &self.id]).silent();
    }

    /// `create` and `start`.
    #[track_caller]
    pub fn run(&self) {
        self.create().unwrap_or_else(|err| panic!("{err}"));
        self.start();
    }

    /// `state`; `None` where CRI-O takes the container for stopped.
    #[must_use]
    pub fn state(&self) -> Option<Value> {
        let out = self.crio.call(&["state", &self.id]);
        (out.code == 0).then(|| serde_json::from_str(&out.stdout).expect("JSON"))
    }

    /// Its process, from the pid file, which has no newline.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.bundle.join("pidfile")).expect("read the pid file");
        text.parse().expect("a number and nothing else")
    }

    fn process(&self, args: &[&str], terminal: bool) -> PathBuf {
        let mut process = self.spec["process"].clone();
        process["args"] = json!(args);
        process["terminal"] = json!(terminal);
        let file = self.bundle.join(unique("exec-process"));
        fs::write(&file, process.to_string()).expect("write the process");
        file
    }

    /// `ExecSync` of the CRI, by conmon; `timeout` in seconds.
    #[must_use]
    #[track_caller]
    pub fn exec_sync(&self, args: &[&str], timeout: Option<u32>) -> Ended {
        let (pid, log) = (
            self.file(&unique("exec-pid")),
            self.file(&unique("exec-log")),
        );
        let process = self.process(args, false).display().to_string();
        let binary = path("RUNTIME_UNDER_TEST").display().to_string();
        let root = format!("--root={}", self.crio.root.display());
        let attach = self.crio.dir.join("attach").display().to_string();
        let mut all = vec![
            "-c",
            &self.id,
            "-n",
            "k8s_name",
            "-r",
            &binary,
            "-p",
            &pid,
            "-e",
            "-l",
            &log,
            "--socket-dir-path",
            &attach,
            "--log-level",
            "info",
            "--sync",
            "--log-global-size-max",
            "16777216",
        ];
        let seconds = timeout.unwrap_or_default().to_string();
        if timeout.is_some() {
            all.extend(["-T", &seconds]);
        }
        all.extend(["--exec-process-spec", &process, "--runtime-arg", &root]);
        let said = Monitor::answer(&all, &self.bundle);
        let (stdout, mut stderr) = log_streams(Path::new(&log));
        stderr.push_str(said["message"].as_str().unwrap_or_default());
        Ended {
            code: said["exit_code"].as_i64().unwrap_or(-1),
            stdout,
            stderr,
        }
    }

    /// `Exec` of the CRI without a terminal: the runtime itself, in the foreground, over pipes.
    #[must_use]
    #[track_caller]
    pub fn exec_stream(&self, args: &[&str], input: &[u8]) -> Ended {
        let file = self.process(args, false);
        let mut command = Command::new(path("RUNTIME_UNDER_TEST"));
        clean(&mut command)
            .env_remove("PATH")
            .arg("--root")
            .arg(&self.crio.root);
        command.args(["exec", "--process"]).arg(file).arg(&self.id);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the runtime");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let out = child.wait_with_output().expect("wait for the runtime");
        writer.join().expect("the writer");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended {
            code: out.status.code().unwrap_or(-1).into(),
            stdout: text(out.stdout),
            stderr: text(out.stderr),
        }
    }

    /// `Exec` of the CRI with a terminal of `rows` and `columns`: the runtime gets one and relays to the inner one.
    #[must_use]
    pub fn exec_terminal(&self, args: &[&str], rows: u32, columns: u32) -> Output {
        let file = self.process(args, true).display().to_string();
        on_terminal(&format!(
            "stty rows {rows} cols {columns}; '{}' --root '{}' exec --process '{file}' {}",
            path("RUNTIME_UNDER_TEST").display(),
            self.crio.root.display(),
            self.id
        ))
    }

    /// `Attach` of the CRI: what the container prints from now on, until `word` is in it.
    #[must_use]
    #[track_caller]
    pub fn attach_until(&self, word: &str) -> String {
        let place = self.crio.dir.join("attach").join(&self.id).join("attach");
        let kind = SockType::SeqPacket;
        let socket =
            socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).expect("make a socket");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        connect(fd, &UnixAddr::new(&place).expect("an address")).expect("connect to conmon");
        let patience = nix::sys::time::TimeVal::new(10, 0);
        nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::ReceiveTimeout,
            &patience,
        )
        .expect("set a time limit");
        let mut said = String::new();
        while !said.contains(word) {
            let mut packet = [0; 8193];
            let length = recv(fd, &mut packet, nix::sys::socket::MsgFlags::empty())
                .unwrap_or_else(|err| panic!("{err} after `{said}`"));
            assert!(length > 0, "conmon hung up after `{said}`");
            // The first byte is the stream.
            assert!(matches!(packet[0], 2 | 3), "stream {}", packet[0]);
            said.push_str(&String::from_utf8_lossy(&packet[1..length]));
        }
        said
    }

    /// conmon's control pipe: `1 ROWS COLUMNS` resizes, `2 0 0` opens the log again.
    #[track_caller]
    pub fn control(&self, message: &str) {
        fs::write(self.bundle.join("ctl"), format!("{message}\n")).expect("write to conmon");
    }

    /// `update`, with the resources on stdin.
    #[track_caller]
    pub fn update(&self, resources: &Value) {
        let input = self.bundle.join("update");
        fs::write(&input, resources.to_string()).expect("write");
        let mut command = Command::new("sh");
        clean(&mut command).args([
            "-c",
            "exec \"$0\" --root \"$1\" update --resources - \"$2\" < \"$3\"",
        ]);
        command
            .arg(path("RUNTIME_UNDER_TEST"))
            .arg(&self.crio.root)
            .arg(&self.id)
            .arg(&input);
        run(&mut command).silent();
    }

    /// A file of its cgroup, as CRI-O reads statistics and limits.
    #[must_use]
    pub fn cgroup_file(&self, name: &str) -> Option<String> {
        let dirs = cgroup_dirs(
            self.spec["linux"]["cgroupsPath"]
                .as_str()
                .unwrap_or_default(),
        );
        dirs.iter()
            .find_map(|dir| fs::read_to_string(dir.join(name)).ok())
    }

    /// `StopContainer`: the signal, and after the time of grace `KILL`.
    #[track_caller]
    pub fn stop(&self, grace: Duration) {
        let pid = self.pid();
        self.crio.call(&["kill", &self.id, "15"]).silent();
        let end = Instant::now() + grace;
        while running(pid) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
        }
        if running(pid) {
            let out = self.crio.call(&["kill", &self.id, "KILL"]);
            let gone = [
                "container not running",
                "no such process",
                "invalid process",
            ];
            assert!(
                out.code == 0 || gone.iter().any(|word| out.stderr.contains(word)),
                "{out:#?}"
            );
        }
        until("the process to end", || !running(pid));
    }

    /// The exit code, which conmon writes.
    #[must_use]
    #[track_caller]
    pub fn exit_code(&self) -> i32 {
        let file = self.crio.dir.join("exits").join(&self.id);
        until("conmon's exit file", || {
            fs::read_to_string(&file).is_ok_and(|text| !text.is_empty())
        });
        let text = fs::read_to_string(&file).expect("read the exit file");
        text.trim().parse().expect("a number")
    }

    /// Whether conmon saw it run out of memory.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        self.bundle.join("oom").exists()
    }

    /// `delete --force`.
    #[track_caller]
    pub fn delete(&self) {
        self.crio.call(&["delete", "--force", &self.id]).silent();
    }

    /// No state, no cgroup, no process.
    #[track_caller]
    pub fn assert_gone(&self) {
        assert!(!self.crio.root.join(&self.id).exists(), "its state is left");
        let dirs = cgroup_dirs(
            self.spec["linux"]["cgroupsPath"]
                .as_str()
                .unwrap_or_default(),
        );
        assert_eq!(dirs, Vec::<PathBuf>::new(), "its cgroup is left");
    }
}

fn running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        drop(self.crio.call(&["delete", "--force", &self.id]));
        drop(fs::remove_dir_all(&self.bundle));
    }
}
