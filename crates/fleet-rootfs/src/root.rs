//! File operations below a root directory, by descriptor.
//!
//! A path is resolved once, to a descriptor; what is done next is done to that descriptor, or to a single name in a
//! [`Directory`] that is held. Links and `..` are resolved as a process inside the root would see them, so no path,
//! whatever the image's author made of it, leads out.
//!
//! The kernel does the lookup (`man 2 openat2`, `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`). Where it cannot, because
//! it is older than 5.6 or a seccomp filter of an outer container refuses the call, the module `walk` does the same one
//! component at a time.
//!
//! Why not `pathrs`, which is linked through libcontainer anyway: it resolves in the same way, but its operations
//! start from a path each time, while the edits here look at a name, decide, and change it in one directory that is
//! held (a library's folder, hundreds of names). Its fallback and its reopening go through a procfs handle that it makes
//! first: some system calls more at each start, and a need for procfs that these edits do not have otherwise.

mod directory;
mod walk;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

pub use directory::Directory;
pub use rustix::fs::{FileType, OFlags, Stat};
use rustix::fs::{Mode, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// A lookup that raced with a rename asks to be repeated (`EAGAIN`).
const RETRIES: usize = 16;

/// The kernel or a seccomp filter has said that there is no `openat2`.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// A root directory that nothing leaves.
#[derive(Debug, Clone, Copy)]
pub struct Root<'fd> {
    fd: BorrowedFd<'fd>,
    walk: bool,
}

/// Cleans a path lexically; the result is absolute and free of `.`, `..` and double slashes.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

impl<'fd> Root<'fd> {
    /// Takes the directory behind `fd` (`O_PATH` is enough) as root.
    #[must_use]
    pub fn new(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, walk: false }
    }

    /// The same root looked up without `openat2`, for the tests of that way.
    #[doc(hidden)]
    #[must_use]
    pub fn without_openat2(self) -> Self {
        Self { walk: true, ..self }
    }

    fn look_up(&self, path: &str, flags: OFlags, extra: ResolveFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if !self.walk && !NO_OPENAT2.load(Ordering::Relaxed) {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | extra;
            for _ in 0..RETRIES {
                match openat2(self.fd, path, flags, Mode::empty(), resolve) {
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(Errno::NOSYS) => {
                        NO_OPENAT2.store(true, Ordering::Relaxed);
                        break;
                    }
                    // Older seccomp profiles refuse what they do not know with this; the walk tells which it is.
                    Err(Errno::PERM) => break,
                    other => return Ok(other?),
                }
            }
        }
        let found = walk::open(self.fd, path.as_bytes(), flags, Mode::empty())?;
        if extra.contains(ResolveFlags::NO_XDEV) && fstat(&found)?.st_dev != fstat(self.fd)?.st_dev
        {
            return Err(Errno::XDEV.into());
        }
        Ok(found)
    }

    /// Opens what exists at `path`; nothing is created.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        self.look_up(
            path,
            flags.difference(OFlags::CREATE),
            ResolveFlags::empty(),
        )
    }

    /// Follows `path` to what it names and returns its attributes.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn stat(&self, path: &str) -> io::Result<Stat> {
        Ok(fstat(self.open(path, OFlags::PATH)?)?)
    }

    /// Whether `path` names something, links followed.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.open(path, OFlags::PATH).is_ok()
    }

    /// Whether the directory at `path` is reached without entering another mount, such as a volume of the host.
    /// Without `openat2` another file system is all that is noticed.
    #[must_use]
    pub fn on_own_mount(&self, path: &str) -> bool {
        self.look_up(path, OFlags::PATH, ResolveFlags::NO_XDEV)
            .is_ok()
    }

    /// Opens a regular file for reading; anything else (a FIFO would block) is `EINVAL`.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn open_file(&self, path: &str) -> io::Result<File> {
        let fd = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        Ok(File::from(fd))
    }

    /// Reads a regular file of at most `limit` bytes; a larger one is `EFBIG`.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open_file(path)?;
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > limit {
            return Err(Errno::FBIG.into());
        }
        Ok(bytes)
    }

    /// The text of the link at `path`.
    ///
    /// # Errors
    /// As `man 2 readlinkat`; `EINVAL` when it is no link or its text is not UTF-8.
    pub fn read_link(&self, path: &str) -> io::Result<String> {
        let link = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let text = match readlinkat(link, "", Vec::new()) {
            // What the call says of a descriptor that is no link.
            Err(Errno::NOENT) => return Err(Errno::INVAL.into()),
            other => other?,
        };
        text.into_string().map_err(|_| Errno::INVAL.into())
    }

    /// Opens an existing directory.
    ///
    /// # Errors
    /// As `man 2 openat2`.
    pub fn directory(&self, path: &str) -> io::Result<Directory> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map(Directory::new)
    }

    /// Opens a directory, making it and its parents with `mode` where they are missing.
    ///
    /// # Errors
    /// `ENOTDIR` when something else is in the way, `ENOENT` when a link on the way leads nowhere.
    pub fn make_directory(&self, path: &str, mode: u32) -> io::Result<Directory> {
        match self.directory(path) {
            Err(err) if err.raw_os_error() == Some(libc::ENOENT) => {}
            other => return other,
        }
        let mut at = String::new();
        let mut here = self.directory("/")?;
        for part in clean(path).split('/').filter(|part| !part.is_empty()) {
            at = format!("{at}/{part}");
            here = match self.directory(&at) {
                Err(err) if err.raw_os_error() == Some(libc::ENOENT) => {
                    self.make_one(&here, part, &at, mode)?
                }
                other => other?,
            };
        }
        Ok(here)
    }

    fn make_one(
        &self,
        parent: &Directory,
        name: &str,
        path: &str,
        mode: u32,
    ) -> io::Result<Directory> {
        match mkdirat(parent, name, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(parent, name, flags, Mode::empty())?;
                // The mode given to `mkdir` is cut by the umask.
                fchmod(&made, Mode::from_raw_mode(mode))?;
                Ok(Directory::new(made))
            }
            Err(Errno::EXIST) => self.directory(path),
            Err(err) => Err(err.into()),
        }
    }

    /// The directory that holds `path`, made (0755) where it is missing, and the last name of the path. The path is
    /// cleaned lexically first.
    ///
    /// # Errors
    /// As [`Root::make_directory`]; `EINVAL` for the root itself.
    pub fn parent(&self, path: &str) -> io::Result<(Directory, String)> {
        let path = clean(path);
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path.as_str()));
        if name.is_empty() {
            return Err(Errno::INVAL.into());
        }
        let parent = if parent.is_empty() { "/" } else { parent };
        Ok((self.make_directory(parent, 0o755)?, name.to_owned()))
    }

    /// Writes a file in one step (see [`Directory::replace_file`]). A file that has the content and the mode already
    /// is left alone.
    ///
    /// # Errors
    /// As `man 2 renameat`; nothing is left behind.
    pub fn replace(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        if self.holds(path, bytes, mode).unwrap_or(false) {
            return Ok(());
        }
        let (directory, name) = self.parent(path)?;
        directory.replace_file(&name, bytes, mode)
    }

    fn holds(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<bool> {
        let file = self.open_file(path)?;
        let stat = fstat(&file)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if stat.st_mode & 0o7777 != mode || u64::try_from(stat.st_size) != Ok(length) {
            return Ok(false);
        }
        let mut held = Vec::with_capacity(bytes.len());
        file.take(length.saturating_add(1)).read_to_end(&mut held)?;
        Ok(held == bytes)
    }

    /// Removes what `path` names, not following a link at its end; directories stay.
    ///
    /// # Errors
    /// As `man 2 unlinkat`.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let path = clean(path);
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path.as_str()));
        self.directory(if parent.is_empty() { "/" } else { parent })?
            .remove(name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// A root directory that goes away with the test.
    pub(crate) struct Tree {
        pub(crate) path: PathBuf,
        fd: File,
    }

    impl Tree {
        pub(crate) fn new(name: &str) -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!(
                "fleet-rootfs-{name}-{}-{number}",
                std::process::id()
            ));
            drop(fs::remove_dir_all(&path));
            fs::create_dir_all(path.join("root")).unwrap();
            let fd = File::open(path.join("root")).unwrap();
            Self {
                path: path.join("root"),
                fd,
            }
        }

        pub(crate) fn root(&self) -> Root<'_> {
            Root::new(self.fd.as_fd())
        }

        /// The root looked up by the kernel, and by ourselves.
        pub(crate) fn roots(&self) -> [Root<'_>; 2] {
            [self.root(), self.root().without_openat2()]
        }

        pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
            fs::write(self.root_link(path), text).unwrap();
        }

        /// A path in the tree whose directory exists.
        pub(crate) fn root_link(&self, path: &str) -> PathBuf {
            let path = self.path.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        pub(crate) fn read(&self, path: &str) -> String {
            fs::read_to_string(self.path.join(path.trim_start_matches('/'))).unwrap()
        }

        /// A file beside the root, which nothing may reach.
        pub(crate) fn outside(&self, name: &str) -> PathBuf {
            let path = self.path.parent().unwrap().join(name);
            fs::write(&path, "host").unwrap();
            path
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(self.path.parent().unwrap()));
        }
    }

    /// Runs `test` in a mount namespace of its own, or says that it cannot.
    pub(crate) fn own_mounts(name: &str, test: impl FnOnce() + Send + 'static) {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        let name = name.to_owned();
        let thread = std::thread::spawn(move || {
            let none = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let ready = unshare(CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(none, "/", none, private, none));
            match ready {
                Ok(()) => test(),
                Err(err) => println!("SKIP {name}: no mount namespace: {err}"),
            }
        });
        thread.join().unwrap();
    }

    fn errno(err: &io::Error) -> i32 {
        err.raw_os_error().unwrap()
    }

    #[test]
    fn both_ways_resolve_alike() {
        let tree = Tree::new("resolve");
        tree.outside("secret");
        tree.write("usr/lib/file", "1");
        tree.write("file", "2");
        for (target, link) in [
            ("usr/lib", "lib"),
            ("/usr/../../usr/lib", "absolute"),
            ("../secret", "up"),
            ("/../../secret", "higher"),
            ("a", "b"),
            ("b", "a"),
            ("usr/lib/", "slash"),
            ("file/", "file-slash"),
            ("./.", "here"),
            ("usr/lib/../lib/./file", "winding"),
        ] {
            symlink(target, tree.path.join(link)).unwrap();
        }
        let long = "usr/../".repeat(300) + "file";
        let chain: String = std::iter::repeat_n("here/", 40).collect::<String>() + "file";
        let circle: String = std::iter::repeat_n("here/", 41).collect::<String>() + "file";
        let paths = [
            "/",
            ".",
            "..",
            "/..",
            "",
            "file",
            "/file",
            "file/",
            "file/x",
            "lib",
            "lib/file",
            "lib/../lib/file",
            "absolute/file",
            "absolute/../../file",
            "up",
            "up/x",
            "higher",
            "a",
            "a/x",
            "slash",
            "slash/file",
            "file-slash",
            "here",
            "here/file",
            "winding",
            "none",
            "none/..",
            "usr/none",
            "lib/..",
            "../file",
            "../../usr",
            &long,
            &chain,
            &circle,
            "a\0b",
        ];
        let flags = [
            OFlags::PATH,
            OFlags::PATH | OFlags::NOFOLLOW,
            OFlags::PATH | OFlags::DIRECTORY,
            OFlags::RDONLY | OFlags::NONBLOCK,
            OFlags::RDONLY | OFlags::NOFOLLOW,
            OFlags::RDONLY | OFlags::DIRECTORY,
        ];
        for path in paths {
            for flags in flags {
                let [kernel, walk] = tree.roots().map(|root| {
                    let stat = root.open(path, flags).and_then(|fd| Ok(fstat(fd)?));
                    stat.map(|stat| (stat.st_ino, stat.st_mode))
                        .map_err(|err| errno(&err))
                });
                // A link at the end that must be a directory is told by either of two names.
                let both = [&kernel, &walk]
                    .map(|result| matches!(result, Err(libc::ELOOP | libc::ENOTDIR)));
                assert!(
                    kernel == walk || both == [true, true],
                    "{path} {flags:?}: {kernel:?} {walk:?}"
                );
            }
        }
    }

    #[test]
    fn links_stay_inside() {
        let tree = Tree::new("inside");
        let secret = tree.outside("secret");
        symlink("../secret", tree.path.join("up")).unwrap();
        symlink(&secret, tree.path.join("absolute")).unwrap();
        symlink("/../../../../etc", tree.path.join("etc")).unwrap();
        for root in tree.roots() {
            for path in ["/up", "/absolute", "/../secret"] {
                assert_eq!(
                    errno(&root.read(path, 100).unwrap_err()),
                    libc::ENOENT,
                    "{path}"
                );
            }
            for path in ["/up/x", "/absolute/x"] {
                assert_eq!(
                    errno(&root.replace(path, b"1", 0o644).unwrap_err()),
                    libc::ENOENT
                );
            }
        }
        // `/etc` of the root leads to itself.
        assert!(tree.root().replace("/etc/x", b"1", 0o644).is_err());
        assert_eq!(fs::read_to_string(secret).unwrap(), "host");
    }

    #[test]
    fn magic_links_are_not_jumped_through() {
        let root = File::open("/proc/self").unwrap();
        let root = Root::new(root.as_fd());
        let secret = Tree::new("magic");
        for root in [root, root.without_openat2()] {
            // `/proc/self/root` leads to the host's root when the kernel follows it.
            let path = format!("root{}", secret.path.display());
            root.open(&path, OFlags::PATH).unwrap_err();
        }
    }

    #[test]
    fn replace_is_idempotent_and_leaves_nothing() {
        let tree = Tree::new("replace");
        for root in tree.roots() {
            root.replace("/a/b/c", b"one", 0o640).unwrap();
            root.replace("/a/b/c", b"two", 0o644).unwrap();
            let inode = root.stat("/a/b/c").unwrap().st_ino;
            root.replace("/a/b/c", b"two", 0o644).unwrap();
            assert_eq!(
                root.stat("/a/b/c").unwrap().st_ino,
                inode,
                "equal content is left"
            );
            assert_eq!(tree.read("a/b/c"), "two");
            fs::set_permissions(tree.path.join("a/b/c"), fs::Permissions::from_mode(0o600))
                .unwrap();
            root.replace("/a/b/c", b"two", 0o644).unwrap();
            assert_eq!(root.stat("/a/b/c").unwrap().st_mode & 0o7777, 0o644);
            assert_eq!(fs::read_dir(tree.path.join("a/b")).unwrap().count(), 1);
            root.remove("/a/b/c").unwrap();
            assert_eq!(errno(&root.remove("/a/b/c").unwrap_err()), libc::ENOENT);
            assert!(root.remove("/a/b").is_err(), "directories stay");
        }
    }

    #[test]
    fn directories_are_made_with_their_mode() {
        let tree = Tree::new("mkdir");
        tree.write("file", "");
        symlink("nowhere", tree.path.join("dangling")).unwrap();
        fs::create_dir(tree.path.join("real")).unwrap();
        symlink("/real", tree.path.join("link")).unwrap();
        for (root, name) in tree.roots().into_iter().zip(["x", "y"]) {
            root.make_directory(&format!("/link/{name}/z"), 0o755)
                .unwrap();
            let mode = fs::metadata(tree.path.join("real").join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o7777, 0o755);
            root.make_directory(&format!("/link/{name}/z"), 0o700)
                .unwrap();
            assert_eq!(
                errno(&root.make_directory("/file/x", 0o755).unwrap_err()),
                libc::ENOTDIR
            );
            assert_eq!(
                errno(&root.make_directory("/dangling/x", 0o755).unwrap_err()),
                libc::ENOENT
            );
            assert_eq!(errno(&root.parent("/").unwrap_err()), libc::EINVAL);
        }
    }

    #[test]
    fn only_regular_files_are_read() {
        let tree = Tree::new("fifo");
        nix::unistd::mkfifo(&tree.path.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        tree.write("big", [0; 20]);
        for root in tree.roots() {
            assert!(root.read("/pipe", 10).is_err());
            assert_eq!(errno(&root.read("/big", 10).unwrap_err()), libc::EFBIG);
            assert_eq!(root.read("/big", 20).unwrap().len(), 20);
        }
    }

    #[test]
    fn links_are_read() {
        let tree = Tree::new("readlink");
        symlink("../x", tree.path.join("link")).unwrap();
        tree.write("file", "");
        for root in tree.roots() {
            assert_eq!(root.read_link("/link").unwrap(), "../x");
            assert_eq!(errno(&root.read_link("/file").unwrap_err()), libc::EINVAL);
        }
        let directory = tree.root().directory("/").unwrap();
        assert_eq!(directory.read_link("file").unwrap(), None);
        assert_eq!(directory.read_link("none").unwrap(), None);
        for name in ["", ".", "..", "a/b"] {
            assert_eq!(errno(&directory.read_link(name).unwrap_err()), libc::EINVAL);
        }
        assert_eq!(errno(&directory.open("link").unwrap_err()), libc::ELOOP);
    }

    #[test]
    fn another_mount_is_noticed() {
        own_mounts("another_mount_is_noticed", || {
            let tree = Tree::new("xdev");
            fs::create_dir_all(tree.path.join("own")).unwrap();
            let volume = tree.path.join("volume");
            fs::create_dir_all(&volume).unwrap();
            let none = None::<&str>;
            nix::mount::mount(
                Some("none"),
                &volume,
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                none,
            )
            .unwrap();
            for root in tree.roots() {
                assert!(root.on_own_mount("/own"));
                assert!(!root.on_own_mount("/volume"));
            }
            nix::mount::umount(&volume).unwrap();
        });
    }

    #[test]
    fn clean_paths() {
        for (from, to) in [
            ("/a//b/", "/a/b"),
            ("/", "/"),
            ("a", "/a"),
            ("/../../etc", "/etc"),
            ("/a/./b/../c", "/a/c"),
        ] {
            assert_eq!(clean(from), to);
        }
    }
}
