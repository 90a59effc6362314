//! Which functions of the runtime its calls use, in the order in which they first do: `make hot` writes
//! `crates/fleet-nvidia/hot-functions` from it, by which the release is linked (`packaging/linker/cc`).
//!
//! Each function begins with a breakpoint, in the memory of each process of a call, that is taken away when it is met
//! (`man 2 ptrace`). The environment names the runtime, which is not stripped, and the file to write.
#![allow(clippy::expect_used, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "lifecycle/bundles.rs"]
mod bundles;
#[allow(dead_code)]
#[path = "lifecycle/runtimes.rs"]
mod runtimes;

#[cfg(target_arch = "x86_64")]
fn main() {
    calls::all();
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("SKIP hot: breakpoints are known for x86_64 alone");
}

#[cfg(target_arch = "x86_64")]
mod calls {
    use std::collections::{BTreeMap, HashSet};
    use std::fs::{self, File, OpenOptions};
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::process::{Command, Stdio};
    use std::{env, io};

    use nix::errno::Errno;
    use nix::sys::ptrace::{self, Options};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    use crate::bundles::{self, Bundle};
    use crate::runtimes::{self, Runtime, text};

    /// `int3`
    const BREAKPOINT: [u8; 1] = [0xcc];

    pub(super) fn all() {
        let work = env::temp_dir().join(format!("fleet-hot-{}", std::process::id()));
        fs::create_dir_all(&work).expect("make the work directory");
        let runtime = runtimes::all(&work).remove(0);
        let rootfs = bundles::rootfs(&work);
        let bundle = |name: &str, args: &[&str]| {
            let bundle = Bundle::new(work.join(name), bundles::plain(&rootfs, args));
            bundle.lend(&runtime, name);
            bundle
        };
        let (new, old) = ("hot-new", "hot-old");
        let running = bundle(old, &["/bin/busybox", "sleep", "1000"]);
        let created = bundle(new, &["/bin/busybox", "true"]);
        let run = ["run", "-d", "--bundle", text(&running.dir), old];
        let (fine, said) = runtimes::run(&runtime.command(&run), &runtime.root);
        assert!(fine, "{said}");
        let mut program = Program::of(&runtime);
        for args in [
            &["state", old][..],
            &["exec", old, "/bin/busybox", "true"],
            &["create", "--bundle", text(&created.dir), new],
            &["start", new],
            &["delete", "--force", new],
            &["delete", "--force", old],
        ] {
            let before = program.met.len();
            lead(&runtime.command(args), &mut program);
            println!("{}: {} more", args.join(" "), program.met.len() - before);
        }
        let file = env::var_os("FLEET_HOT").expect("FLEET_HOT names the file to write");
        fs::write(file, program.met.join("\n") + "\n").expect("write the file");
        drop(fs::remove_dir_all(&work));
    }

    /// Leads a command to its end. What it leaves running is led on with the next one.
    fn lead(command: &[String], program: &mut Program) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
        shell.args(command).stdin(Stdio::null());
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        // Waited for by its number, with all the others.
        #[allow(clippy::zombie_processes)]
        let child = shell.spawn().expect("start a shell");
        let first = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        waitpid(first, Some(WaitPidFlag::WUNTRACED)).expect("wait for the shell");
        let options = Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(first, options).expect("seize the shell");
        kill(first, Signal::SIGCONT).expect("continue the shell");
        loop {
            let (process, signal) = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(process, code)) if process == first => {
                    assert_eq!(code, 0, "{}", command.join(" "));
                    return;
                }
                Ok(WaitStatus::PtraceEvent(process, _, event)) => {
                    if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 {
                        program.plant(process);
                    }
                    (process, None)
                }
                Ok(WaitStatus::Stopped(process, signal)) => {
                    let met = signal == Signal::SIGTRAP && program.meet(process);
                    (process, Some(signal).filter(|_| !met))
                }
                Ok(WaitStatus::Signaled(process, signal, _)) => {
                    assert_ne!(process, first, "{signal}: {}", command.join(" "));
                    continue;
                }
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(err) => panic!("wait: {err}"),
            };
            match ptrace::cont(process, signal) {
                // It was killed meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(err) => panic!("continue {process}: {err}"),
            }
        }
    }

    /// The runtime, and what of it was met.
    struct Program {
        inode: u64,
        /// Functions by where they begin, with the first byte that they have.
        functions: BTreeMap<u64, (String, [u8; 1])>,
        known: HashSet<u64>,
        met: Vec<String>,
    }

    impl Program {
        fn of(runtime: &Runtime) -> Self {
            let mut nm = Command::new("nm");
            nm.args(["--defined-only", "--demangle", text(&runtime.path)]);
            let listed = nm.output().expect("nm").stdout;
            let functions: BTreeMap<_, _> = String::from_utf8_lossy(&listed)
                .lines()
                .filter_map(|line| {
                    let (address, rest) = line.split_once(' ')?;
                    let (kind, name) = rest.split_once(' ')?;
                    let address = u64::from_str_radix(address, 16).ok()?;
                    let code = ["t", "T", "w", "W"].contains(&kind);
                    code.then(|| (address, (name.to_owned(), BREAKPOINT)))
                })
                .collect();
            assert!(!functions.is_empty(), "the program has no symbols");
            let inode = fs::metadata(&runtime.path).expect("the program").ino();
            Self {
                inode,
                functions,
                known: HashSet::new(),
                met: Vec::new(),
            }
        }

        /// Where a process has the program in its memory.
        fn begin(&self, process: Pid) -> Option<u64> {
            let maps = fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
            let inode = self.inode.to_string();
            let mut lines = maps.lines();
            let first = lines.find(|line| line.split_whitespace().nth(4) == Some(&inode))?;
            u64::from_str_radix(first.split_once('-')?.0, 16).ok()
        }

        /// Puts a breakpoint at each function of a process that has just been given this program.
        fn plant(&mut self, process: Pid) {
            let Some(begin) = self.begin(process) else {
                return;
            };
            let memory = memory(process).expect("open the memory of the process");
            for (offset, (_, byte)) in &mut self.functions {
                let at = begin + offset;
                memory.read_exact_at(byte, at).expect("read a function");
                memory
                    .write_all_at(&BREAKPOINT, at)
                    .expect("write a breakpoint");
            }
        }

        /// Takes away the breakpoint that a process has met; false when it was none of ours.
        fn meet(&mut self, process: Pid) -> bool {
            let Ok(mut registers) = ptrace::getregs(process) else {
                return false;
            };
            let at = registers.rip - 1;
            let offset = self.begin(process).and_then(|begin| at.checked_sub(begin));
            let Some((offset, (name, byte))) =
                offset.and_then(|offset| self.functions.get_key_value(&offset))
            else {
                return false;
            };
            if self.known.insert(*offset) {
                self.met.push(name.clone());
            }
            registers.rip = at;
            memory(process)
                .and_then(|memory| memory.write_all_at(byte, at))
                .is_ok()
                && ptrace::setregs(process, registers).is_ok()
        }
    }

    fn memory(process: Pid) -> io::Result<File> {
        let path = format!("/proc/{process}/mem");
        OpenOptions::new().read(true).write(true).open(path)
    }
}
