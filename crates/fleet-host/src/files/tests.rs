//! One test per rule of what a container gets; `docs/cdi-generate.md` lists them.

mod elf;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

const V: &str = "550.54.15";
const LIB: &str = "/usr/lib/x86_64-linux-gnu";

/// A tree that goes away with the test.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With a CUDA library, by which the version is told.
    fn with_cuda() -> Self {
        let root = Self::new();
        root.library(&format!("{LIB}/libcuda.so.{V}"), "libcuda.so.1");
        root
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        let path = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn file(&self, path: &str) -> &Self {
        fs::write(self.at(path), "x").unwrap();
        self
    }

    fn program(&self, path: &str) -> &Self {
        self.file(path);
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn library(&self, path: &str, soname: &str) -> &Self {
        fs::write(self.at(path), elf::library(soname)).unwrap();
        self
    }

    fn link(&self, path: &str, target: &str) -> &Self {
        symlink(target, self.at(path)).unwrap();
        self
    }

    fn tree(&self, prefix: &str) -> Tree {
        Tree::open(self.0.path(), prefix).unwrap()
    }

    fn look(&self, wanted: Wanted) -> DriverFiles {
        self.try_look(None, wanted).unwrap()
    }

    fn find(&self) -> DriverFiles {
        self.look(Wanted::default())
    }

    fn try_look(&self, loaded: Option<&str>, wanted: Wanted) -> Result<DriverFiles, FilesError> {
        let tree = self.tree("/");
        driver_files(&places(&tree), loaded, wanted)
    }
}

/// The usual places, whatever the tests' own environment says.
fn places(tree: &Tree) -> Places<'_> {
    Places::by_variables(tree, tree, tree, "", "")
}

fn names(libraries: &[Library]) -> Vec<&str> {
    libraries
        .iter()
        .map(|library| library.file.container.as_str())
        .collect()
}

fn containers(files: &[File]) -> Vec<&str> {
    files.iter().map(|file| file.container.as_str()).collect()
}

fn links(files: &DriverFiles) -> Vec<String> {
    let all = files.libraries.iter().flat_map(|library| &library.links);
    all.map(|link| format!("{}::{}", link.target, link.link))
        .collect()
}

#[test]
fn every_library_of_the_version_in_every_directory_that_has_one() {
    let root = Root::with_cuda();
    root.library(
        &format!("{LIB}/nvidia/current/libnvidia-ml.so.{V}"),
        "libnvidia-ml.so.1",
    );
    root.library(
        &format!("{LIB}/libnvidia-future.so.{V}"),
        "libnvidia-future.so.1",
    );
    root.library(
        &format!("{LIB}/vdpau/libvdpau_nvidia.so.{V}"),
        "libvdpau_nvidia.so.1",
    );
    root.library(
        &format!("{LIB}/libnvidia-nvvm70.so.4"),
        "libnvidia-nvvm70.so.4",
    );
    root.library(&format!("{LIB}/nvidia_future.so.{V}"), "");
    root.library(&format!("{LIB}/libother.so.550.54.1"), "libother.so.1");
    root.library(&format!("{LIB}/libGL.so.1.7.0"), "libGL.so.1");
    let files = root.find();
    assert_eq!(files.version, V);
    let current = format!("{LIB}/nvidia/current");
    assert_eq!(files.library_dirs, [LIB, &current]);
    let want = [
        format!("{LIB}/libcuda.so.{V}"),
        format!("{LIB}/libnvidia-future.so.{V}"),
        format!("{LIB}/nvidia_future.so.{V}"),
        format!("{current}/libnvidia-ml.so.{V}"),
        format!("{LIB}/vdpau/libvdpau_nvidia.so.{V}"),
        format!("{LIB}/libnvidia-nvvm70.so.4"),
    ];
    assert_eq!(names(&files.libraries), want);
    assert_eq!(files.warnings, [""; 0]);
}

#[test]
fn each_directory_of_the_list_is_searched() {
    for dir in [
        "",
        "/usr/lib64",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu/nvidia/current",
        "/usr/lib/aarch64-linux-gnu/nvidia/current",
        "/lib64",
        "/lib/x86_64-linux-gnu",
        "/lib/aarch64-linux-gnu",
        "/lib/x86_64-linux-gnu/nvidia/current",
        "/lib/aarch64-linux-gnu/nvidia/current",
    ] {
        let root = Root::new();
        root.library(&format!("{dir}/libcuda.so.{V}"), "libcuda.so.1");
        assert_eq!(
            names(&root.find().libraries),
            [format!("{dir}/libcuda.so.{V}")]
        );
    }
}

#[test]
fn one_directory_by_two_paths_counts_once_and_links_are_resolved() {
    let root = Root::new();
    root.library(&format!("/usr/lib64/libcuda.so.{V}"), "libcuda.so.1");
    root.link("/lib64", "usr/lib64");
    root.library(&format!("/opt/nv/libnvidia-ml.so.{V}"), "libnvidia-ml.so.1");
    root.link(
        &format!("/usr/lib64/libnvidia-ml.so.{V}"),
        &format!("/opt/nv/libnvidia-ml.so.{V}"),
    );
    let files = root.find();
    assert_eq!(files.library_dirs, ["/usr/lib64", "/opt/nv"]);
    let want = [
        format!("/usr/lib64/libcuda.so.{V}"),
        format!("/opt/nv/libnvidia-ml.so.{V}"),
    ];
    assert_eq!(names(&files.libraries), want);
}

#[test]
fn directories_that_only_the_loaders_cache_names() {
    let root = Root::new();
    root.library(&format!("/opt/nvidia/lib/libcuda.so.{V}"), "libcuda.so.1");
    root.link(
        "/usr/lib64/libcuda.so.1",
        &format!("/opt/nvidia/lib/libcuda.so.{V}"),
    );
    root.library(&format!("/opt/nvidia/lib32/libcuda.so.{V}"), "libcuda.so.1");
    let entry = |flags, path: &str| fleet_rootfs::ldcache::Entry {
        flags,
        key: b"libcuda.so.1".to_vec(),
        path: path.as_bytes().to_vec(),
        os_version: 0,
        hwcap: 0,
    };
    let lost = entry(0x303, "/gone/libcuda.so.1");
    let other = entry(0x3, "/opt/nvidia/lib32/libcuda.so.550.54.15");
    let cache = fleet_rootfs::ldcache::Cache {
        entries: vec![lost, entry(0x303, "/usr/lib64/libcuda.so.1"), other],
        ..Default::default()
    };
    fs::write(
        root.at("/etc/ld.so.cache"),
        fleet_rootfs::ldcache::serialise(&cache),
    )
    .unwrap();
    assert_eq!(root.find().library_dirs, ["/opt/nvidia/lib"]);
    let files = root.look(Wanted {
        compat32: true,
        ..Wanted::default()
    });
    assert_eq!(
        names(&files.compat32),
        [""; 0],
        "a 64-bit file is none of 32 bits, wherever it lies"
    );
    fs::write(root.at("/etc/ld.so.cache"), "damaged").unwrap();
    assert!(root.try_look(None, Wanted::default()).is_err());
}

#[test]
fn directories_that_a_user_names_take_the_place_of_all() {
    let root = Root::with_cuda();
    root.library(&format!("/opt/a/libcuda.so.{V}"), "libcuda.so.1");
    let tree = root.tree("/");
    let mut places = places(&tree);
    places.library_dirs = vec!["/opt/a".to_owned(), "/no/such".to_owned()];
    let files = driver_files(&places, None, Wanted::default()).unwrap();
    assert_eq!(files.library_dirs, ["/opt/a"]);
}

#[test]
fn neutral_libraries_come_when_asked_for() {
    let root = Root::with_cuda();
    for name in EXPLICIT_NAMES {
        let name = name.trim_end_matches(".so");
        root.library(&format!("{LIB}/{name}.so.1.2.0"), &format!("{name}.so.1"));
        root.link(&format!("{LIB}/{name}.so"), &format!("{name}.so.1.2.0"));
    }
    assert_eq!(
        names(&root.find().libraries),
        [format!("{LIB}/libcuda.so.{V}")]
    );
    let explicit = Wanted {
        explicit: true,
        ..Wanted::default()
    };
    let files = root.look(explicit);
    let mut want = vec![format!("{LIB}/libcuda.so.{V}")];
    want.extend(EXPLICIT_NAMES.map(|name| format!("{LIB}/{name}.1.2.0")));
    assert_eq!(names(&files.libraries), want);
}

const EXPLICIT_NAMES: [&str; 11] = [
    "libEGL.so",
    "libGL.so",
    "libGLESv1_CM.so",
    "libGLESv2.so",
    "libGLX.so",
    "libGLdispatch.so",
    "libOpenCL.so",
    "libOpenGL.so",
    "libnvidia-api.so",
    "libnvidia-egl-xcb.so",
    "libnvidia-egl-xlib.so",
];

#[test]
fn libraries_of_32_bits_come_when_asked_for() {
    let root = Root::with_cuda();
    for dir in ["/usr/lib32", "/usr/lib/i386-linux-gnu", "/usr/lib"] {
        fs::write(
            root.at(&format!("{dir}/libcuda.so.{V}")),
            b"\x7fELF\x01 32 bits",
        )
        .unwrap();
    }
    root.library(
        &format!("/usr/lib/libnvidia-ml.so.{V}"),
        "libnvidia-ml.so.1",
    );
    assert_eq!(root.find().compat32, []);
    let files = root.look(Wanted {
        compat32: true,
        ..Wanted::default()
    });
    let want = ["/usr/lib32", "/usr/lib/i386-linux-gnu", "/usr/lib"]
        .map(|dir| format!("{dir}/libcuda.so.{V}"));
    assert_eq!(names(&files.compat32), want);
}

#[test]
fn each_directory_of_32_bits_is_searched() {
    let wanted = Wanted {
        compat32: true,
        ..Wanted::default()
    };
    let program = b"\x7fELF\x01 32 bits";
    for dir in [
        "/usr/lib32",
        "/usr/lib/i386-linux-gnu",
        "/usr/lib/i386-linux-gnu/nvidia/current",
        "/usr/lib",
        "/lib32",
        "/lib/i386-linux-gnu",
    ] {
        let root = Root::with_cuda();
        let path = format!("{dir}/libcuda.so.{V}");
        fs::write(root.at(&path), program).unwrap();
        assert_eq!(names(&root.look(wanted).compat32), [path]);
    }
    // One that only the loader's cache names.
    let root = Root::with_cuda();
    let path = format!("/opt/nvidia/lib32/libcuda.so.{V}");
    fs::write(root.at(&path), program).unwrap();
    let entry = fleet_rootfs::ldcache::Entry {
        flags: 0x3,
        key: b"libcuda.so.1".to_vec(),
        path: path.as_bytes().to_vec(),
        os_version: 0,
        hwcap: 0,
    };
    let cache = fleet_rootfs::ldcache::Cache {
        entries: vec![entry],
        ..Default::default()
    };
    let bytes = fleet_rootfs::ldcache::serialise(&cache);
    fs::write(root.at("/etc/ld.so.cache"), bytes).unwrap();
    assert_eq!(names(&root.look(wanted).compat32), [path]);
}

#[test]
fn links_beside_libraries() {
    let root = Root::with_cuda();
    root.library(&format!("{LIB}/libnvidia-ml.so.{V}"), "libnvidia-ml.so.1");
    root.link(
        &format!("{LIB}/libnvidia-ml.so.1"),
        &format!("libnvidia-ml.so.{V}"),
    );
    root.link(&format!("{LIB}/libnvidia-ml.so"), "libnvidia-ml.so.1");
    // No link on the host, a file in place of a link, a library without a name, one that is its own name.
    root.library(&format!("{LIB}/libnvidia-cfg.so.{V}"), "libnvidia-cfg.so.1");
    root.library(&format!("{LIB}/libnvidia-ngx.so.{V}"), "libnvidia-ngx.so.1");
    root.file(&format!("{LIB}/libnvidia-ngx.so.1"));
    root.library(&format!("{LIB}/libnvidia-tls.so.{V}"), "");
    root.link(
        &format!("{LIB}/libnvidia-tls.so"),
        &format!("libnvidia-tls.so.{V}"),
    );
    root.library(
        &format!("{LIB}/libnvidia-glsi.so.{V}"),
        &format!("libnvidia-glsi.so.{V}"),
    );
    let link = |target: &str, name: &str| format!("{target}::{LIB}/{name}");
    let want = [
        link("libcuda.so.1", "libcuda.so"),
        link(&format!("libnvidia-ml.so.{V}"), "libnvidia-ml.so.1"),
        link("libnvidia-ml.so.1", "libnvidia-ml.so"),
        link(&format!("libnvidia-tls.so.{V}"), "libnvidia-tls.so"),
    ];
    assert_eq!(links(&root.find()), want);
}

#[test]
fn links_that_programs_expect_wherever_the_host_has_none() {
    let root = Root::with_cuda();
    for name in ["libGLX_nvidia", "libnvidia-opticalflow"] {
        root.library(&format!("{LIB}/{name}.so.{V}"), &format!("{name}.so.1"));
    }
    let want = [
        format!("libGLX_nvidia.so.{V}::{LIB}/libGLX_indirect.so.0"),
        format!("libcuda.so.1::{LIB}/libcuda.so"),
        format!("libnvidia-opticalflow.so.1::{LIB}/libnvidia-opticalflow.so"),
    ];
    assert_eq!(links(&root.find()), want);
}

#[test]
fn graphics_libraries_and_their_links() {
    let root = Root::with_cuda();
    for (name, version) in [
        ("libnvidia-egl-gbm", "1.1.1"),
        ("libnvidia-egl-wayland", "1.1.13"),
        ("libnvidia-egl-wayland2", "1.0.0"),
        ("libnvidia-egl-xcb", "1.0.0"),
        ("libnvidia-egl-xlib", "1.0.0"),
    ] {
        root.library(
            &format!("{LIB}/{name}.so.{version}"),
            &format!("{name}.so.1"),
        );
        root.link(
            &format!("{LIB}/{name}.so.1"),
            &format!("{name}.so.{version}"),
        );
    }
    for name in ["libnvidia-allocator", "libnvidia-vulkan-producer"] {
        root.library(&format!("{LIB}/{name}.so.{V}"), &format!("{name}.so.1"));
    }
    let files = root.find();
    let want = [
        "gbm.so.1.1.1",
        "wayland.so.1.1.13",
        "wayland2.so.1.0.0",
        "xcb.so.1.0.0",
        "xlib.so.1.0.0",
    ];
    let want = want.map(|name| format!("{LIB}/libnvidia-egl-{name}"));
    assert_eq!(containers(&files.graphics), want);
    let told: Vec<_> = files
        .graphics_links
        .iter()
        .map(|link| format!("{}::{}", link.target, link.link))
        .collect();
    let want = [
        format!("../libnvidia-allocator.so.1::{LIB}/gbm/nvidia-drm_gbm.so"),
        format!("libnvidia-vulkan-producer.so.{V}::{LIB}/libnvidia-vulkan-producer.so"),
    ];
    assert_eq!(told, want);
    let twice = files
        .libraries
        .iter()
        .filter(|library| library.file.name().contains("allocator"));
    assert_eq!(twice.count(), 1, "mounted once");
    // One that has the driver's version is one of its libraries already.
    let name = format!("{LIB}/libnvidia-egl-gbm.so.{V}");
    root.library(&name, "libnvidia-egl-gbm.so.1");
    let files = root.find();
    assert!(names(&files.libraries).contains(&name.as_str()));
    assert_eq!(files.graphics.len(), 5);
}

#[test]
fn modules_of_the_x_server_in_the_first_place_that_has_them() {
    let glx = format!("libglxserver_nvidia.so.{V}");
    let mut places = vec![
        format!("{LIB}/nvidia/xorg"),
        format!("{LIB}/xorg/modules/drivers"),
        format!("{LIB}/xorg/modules/extensions"),
        format!("{LIB}/xorg/modules/updates/drivers"),
        format!("{LIB}/xorg/modules/updates/extensions"),
    ];
    for modules in [
        "/usr/lib/xorg/modules",
        "/usr/lib64/xorg/modules",
        "/usr/X11R6/lib/modules",
        "/usr/X11R6/lib64/modules",
    ] {
        let below = [
            "drivers",
            "extensions",
            "updates/drivers",
            "updates/extensions",
        ];
        places.extend(below.map(|below| format!("{modules}/{below}")));
    }
    let root = Root::with_cuda();
    for dir in places.iter().rev() {
        root.file(&format!("{dir}/nvidia_drv.so"))
            .file(&format!("{dir}/{glx}"));
        let files = root.find();
        assert_eq!(
            containers(&files.xorg),
            [format!("{dir}/nvidia_drv.so"), format!("{dir}/{glx}")]
        );
        let link = &files.graphics_links[0];
        assert_eq!(
            (&link.target, &link.link),
            (&glx, &format!("{dir}/libglxserver_nvidia.so"))
        );
    }
}

#[test]
fn programs_that_can_be_run_in_the_first_directory_that_has_them() {
    let root = Root::with_cuda();
    let all = [
        "nvidia-smi",
        "nvidia-debugdump",
        "nvidia-persistenced",
        "nvidia-cuda-mps-control",
        "nvidia-cuda-mps-server",
        "nvidia-imex",
        "nvidia-imex-ctl",
    ];
    for name in all.iter().chain(&["nvidia-xconfig"]) {
        root.program(&format!("/usr/bin/{name}"));
    }
    root.program("/usr/local/bin/nvidia-smi")
        .file("/usr/local/sbin/nvidia-smi");
    fs::create_dir_all(root.at("/usr/sbin/nvidia-debugdump")).unwrap();
    let files = root.find();
    let mut want = all.map(|name| format!("/usr/bin/{name}"));
    want[0] = "/usr/local/bin/nvidia-smi".to_owned();
    assert_eq!(containers(&files.programs), want);
    assert_eq!(
        containers(&files.graphics_programs),
        ["/usr/bin/nvidia-xconfig"]
    );
}

#[test]
fn programs_and_data_by_the_variables_of_the_environment() {
    for dir in [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ] {
        let root = Root::with_cuda();
        root.program(&format!("{dir}/nvidia-smi"));
        let files = root.find();
        assert_eq!(containers(&files.programs), [format!("{dir}/nvidia-smi")]);
    }
    let root = Root::with_cuda();
    for dir in ["/opt/nv/bin", "/usr/bin"] {
        root.program(&format!("{dir}/nvidia-smi"));
    }
    for dir in ["/opt/nv/share", "/usr/local/share", "/usr/share"] {
        root.file(&format!("{dir}/nvidia/nvoptix.bin"));
    }
    let tree = root.tree("/");
    for (path, data_dirs, smi, optix) in [
        ("", "", "/usr/bin", "/usr/local/share"),
        (
            "/opt/nv/bin:/bin",
            "/opt/nv/share:/usr/share",
            "/opt/nv/bin",
            "/opt/nv/share",
        ),
        (
            "opt/nv/bin:.",
            "opt/nv/share",
            "/usr/bin",
            "/usr/local/share",
        ),
    ] {
        let places = Places::by_variables(&tree, &tree, &tree, path, data_dirs);
        let files = driver_files(&places, None, Wanted::default()).unwrap();
        assert_eq!(containers(&files.programs), [format!("{smi}/nvidia-smi")]);
        assert_eq!(files.configs[0].host, format!("{optix}/nvidia/nvoptix.bin"));
    }
}

#[test]
fn firmware_from_every_place_that_the_kernel_looks_into() {
    let root = Root::with_cuda();
    root.file("/sys/module/firmware_class/parameters/path");
    fs::write(
        root.at("/sys/module/firmware_class/parameters/path"),
        "/opt/fw\n",
    )
    .unwrap();
    fs::create_dir_all(root.at("/proc/sys/kernel/x")).unwrap();
    fs::write(root.at("/proc/sys/kernel/osrelease"), "6.1.0\n").unwrap();
    let dirs = [
        "/opt/fw",
        "/lib/firmware/updates/6.1.0",
        "/lib/firmware/updates",
        "/lib/firmware/6.1.0",
        "/lib/firmware",
    ];
    for dir in dirs {
        root.file(&format!("{dir}/nvidia/{V}/gsp_ga10x.bin"));
        root.file(&format!("{dir}/nvidia/{V}/other.bin"));
        root.file(&format!("{dir}/nvidia/550.0/gsp_tu10x.bin"));
    }
    let files = root.find();
    assert_eq!(
        containers(&files.firmware),
        dirs.map(|dir| format!("{dir}/nvidia/{V}/gsp_ga10x.bin"))
    );
}

#[test]
fn sockets_of_daemons() {
    let root = Root::with_cuda();
    root.file("/run/nvidia-persistenced/socket")
        .file("/var/run/nvidia-persistenced/socket");
    root.file("/var/run/nvidia-fabricmanager/socket");
    let want = [
        "/run/nvidia-persistenced/socket",
        "/var/run/nvidia-fabricmanager/socket",
    ];
    assert_eq!(containers(&root.find().sockets), want);
    root.file("/etc/passwd").link("/tmp/nvidia-mps", "/etc");
    let files = root.find();
    assert_eq!(
        containers(&files.sockets),
        want,
        "anybody could have made the link"
    );
    assert!(
        files.warnings[0].starts_with("/tmp/nvidia-mps is left out"),
        "{:?}",
        files.warnings
    );
    fs::remove_file(root.at("/tmp/nvidia-mps")).unwrap();
    fs::create_dir(root.at("/tmp/nvidia-mps")).unwrap();
    let is_root = fs::metadata(root.0.path())
        .is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    assert_eq!(root.find().sockets.len(), if is_root { 3 } else { 2 });
}

#[test]
fn configuration_goes_to_its_place_from_the_first_that_has_it() {
    let shared = [
        "glvnd/egl_vendor.d/10_nvidia.json",
        "egl/egl_external_platform.d/15_nvidia_gbm.json",
        "egl/egl_external_platform.d/10_nvidia_wayland.json",
        "egl/egl_external_platform.d/09_nvidia_wayland2.json",
        "egl/egl_external_platform.d/20_nvidia_xcb.json",
        "egl/egl_external_platform.d/20_nvidia_xlib.json",
        "nvidia/nvoptix.bin",
        "X11/xorg.conf.d/10-nvidia.conf",
        "X11/xorg.conf.d/nvidia-drm-outputclass.conf",
    ];
    let etc = [
        "OpenCL/vendors/nvidia.icd",
        "vulkan/icd.d/nvidia_icd.json",
        "vulkan/icd.d/nvidia_layers.json",
        "vulkan/implicit_layer.d/nvidia_layers.json",
    ];
    let root = Root::with_cuda();
    let find = |host: &str, files: &DriverFiles| {
        files.configs.iter().find(|file| file.host == host).cloned()
    };
    // From the last place to the first, each takes the place of the one before.
    for dir in ["/usr/share", "/usr/local/share", "/etc"] {
        for name in shared.iter().chain(&etc) {
            root.file(&format!("{dir}/{name}"));
        }
        let files = root.find();
        assert_eq!(files.configs.len(), shared.len() + etc.len());
        for (names, at) in [(&shared[..], "/usr/share"), (&etc[..], "/etc")] {
            for name in names {
                let file = find(&format!("{dir}/{name}"), &files).unwrap();
                assert_eq!(file.container, format!("{at}/{name}"));
            }
        }
    }
}

#[test]
fn vulkan_files_at_the_root_and_by_architecture() {
    let root = Root::with_cuda();
    root.file("/vulkan/icd.d/nvidia_icd.json")
        .file("/OpenCL/vendors/nvidia.icd");
    let name = match cfg!(target_arch = "aarch64") {
        true => "vulkan/icd.d/nvidia_icd.aarch64.json",
        false => "vulkan/icd.d/nvidia_icd.x86_64.json",
    };
    root.file(&format!("/usr/share/{name}"));
    let told = root.find().configs;
    let hosts: Vec<_> = told
        .iter()
        .map(|file| (file.host.as_str(), file.container.clone()))
        .collect();
    let want = [
        (
            "/vulkan/icd.d/nvidia_icd.json",
            "/etc/vulkan/icd.d/nvidia_icd.json".to_owned(),
        ),
        (&format!("/usr/share/{name}"), format!("/etc/{name}")),
    ];
    assert_eq!(hosts, want, "OpenCL's is not looked for at the root");
}

/// Below another root, links are followed: two names may be one file.
#[test]
fn one_file_of_the_host_goes_to_one_place() {
    let root = Root::with_cuda();
    let name = format!("nvidia_icd.{}.json", std::env::consts::ARCH);
    root.file(&format!("/usr/share/vulkan/icd.d/{name}"));
    root.link("/usr/share/vulkan/icd.d/nvidia_icd.json", &name);
    let tree = root.tree("/run/nvidia/driver");
    let files = driver_files(&places(&tree), None, Wanted::default()).unwrap();
    let want = ["/etc/vulkan/icd.d/nvidia_icd.json"];
    assert_eq!(containers(&files.configs), want);
}

#[test]
fn places_of_configuration_that_a_user_names() {
    let root = Root::with_cuda();
    root.file("/usr/share/nvidia/nvoptix.bin")
        .file("/conf/nvidia/nvoptix.bin");
    let tree = root.tree("/");
    let mut places = places(&tree);
    places.config_dirs = vec!["/conf".to_owned()];
    let files = driver_files(&places, None, Wanted::default()).unwrap();
    assert_eq!(files.configs[0].host, "/conf/nvidia/nvoptix.bin");
    assert_eq!(files.configs[0].container, "/usr/share/nvidia/nvoptix.bin");
}

#[test]
fn another_root_is_taken_off_in_containers_and_its_links_stay_in_it() {
    let root = Root::with_cuda();
    root.program("/opt/nvidia/bin/nvidia-smi")
        .link("/usr/bin/nvidia-smi", "/opt/nvidia/bin/nvidia-smi");
    root.link("/usr/share/nvidia/nvoptix.bin", "/etc/passwd");
    let tree = root.tree("/run/nvidia/driver/");
    let machine = Root::new();
    machine.file("/etc/passwd");
    let host = machine.tree("/");
    let mut places = places(&tree);
    places.host = &host;
    let files = driver_files(&places, None, Wanted::default()).unwrap();
    let cuda = &files.libraries[0].file;
    assert_eq!(cuda.host, format!("/run/nvidia/driver{LIB}/libcuda.so.{V}"));
    assert_eq!(cuda.container, format!("{LIB}/libcuda.so.{V}"));
    assert_eq!(files.library_dirs, [LIB]);
    let smi = &files.programs[0];
    assert_eq!(
        smi.host, "/run/nvidia/driver/opt/nvidia/bin/nvidia-smi",
        "the link is absolute in its own root"
    );
    assert_eq!(smi.container, "/usr/bin/nvidia-smi");
    assert_eq!(
        files.configs,
        [],
        "the machine's own file is not the driver's"
    );
    // Directories that a user names are the machine's.
    places.library_dirs = vec![format!("/run/nvidia/driver{LIB}")];
    let again = driver_files(&places, None, Wanted::default()).unwrap();
    assert_eq!(again.libraries, files.libraries);
}

#[test]
fn two_versions_side_by_side() {
    let root = Root::with_cuda();
    root.library(&format!("{LIB}/libcuda.so.535.10"), "libcuda.so.1");
    let err = root
        .try_look(None, Wanted::default())
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("535.10 and 550.54.15") && err.contains("hint: "),
        "{err}"
    );
    let files = root.try_look(Some("535.10"), Wanted::default()).unwrap();
    assert_eq!(
        names(&files.libraries),
        [format!("{LIB}/libcuda.so.535.10")]
    );
    assert!(
        files.warnings[0].contains("550.54.15 lie beside"),
        "{:?}",
        files.warnings
    );
    let err = root
        .try_look(Some("580.1"), Wanted::default())
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("version 580.1, which is loaded") && err.contains("hint: reboot"),
        "{err}"
    );
    root.link(&format!("{LIB}/libcuda.so.1"), &format!("libcuda.so.{V}"));
    let files = root.find();
    assert_eq!(files.version, V);
    assert!(
        files.warnings[0].contains("libcuda.so.1 leads to 550.54.15"),
        "{:?}",
        files.warnings
    );
}

#[test]
fn the_management_library_tells_the_version_where_cuda_is_not_installed() {
    let root = Root::new();
    root.library(&format!("{LIB}/libnvidia-ml.so.{V}"), "libnvidia-ml.so.1");
    root.library(&format!("{LIB}/libcuda.so.1"), "libcuda.so.1");
    assert_eq!(root.find().version, V);
    let err = Root::new()
        .try_look(None, Wanted::default())
        .unwrap_err()
        .to_string();
    assert!(
        err.starts_with("find the driver's libraries below /: there is no libcuda.so.<version>"),
        "{err}"
    );
}

#[test]
fn what_cannot_be_used_costs_itself_alone() {
    let root = Root::with_cuda();
    fs::create_dir(root.at(&format!("{LIB}/libnvidia-dir.so.{V}"))).unwrap();
    root.link(
        &format!("{LIB}/libnvidia-loop.so.{V}"),
        &format!("libnvidia-loop2.so.{V}"),
    );
    root.link(
        &format!("{LIB}/libnvidia-loop2.so.{V}"),
        &format!("libnvidia-loop.so.{V}"),
    );
    root.link(&format!("{LIB}/libnvidia-gone.so.{V}"), "/no/such/file");
    root.file(&format!("{LIB}/libnvidia-text.so.{V}"));
    root.link("/usr/bin/nvidia-smi", "nvidia-smi");
    root.link("/etc/OpenCL/vendors/nvidia.icd", "../vendors/nvidia.icd");
    fs::write(root.at(&format!("{LIB}/libnvidia-\u{1b}[31m.so.1")), "x").unwrap();
    let files = root.find();
    let want = [
        format!("{LIB}/libcuda.so.{V}"),
        format!("{LIB}/libnvidia-text.so.{V}"),
    ];
    assert_eq!(names(&files.libraries), want);
    let warned = files.warnings.join("\n");
    for word in [
        "libnvidia-dir.so.550.54.15 is left out: it is a directory",
        "libnvidia-loop.so",
        "libnvidia-loop2.so",
        "libnvidia-gone.so",
        "libnvidia-text.so.550.54.15 gets no links",
    ] {
        assert!(warned.contains(word), "{word}: {warned}");
    }
    assert_eq!(files.warnings.len(), 5, "{warned}");
    assert_eq!((files.programs, files.configs), (Vec::new(), Vec::new()));
}

#[test]
fn a_version_is_text_and_no_pattern() {
    let root = Root::new();
    root.library(&format!("{LIB}/libcuda.so.*.*"), "libcuda.so.1");
    root.library(&format!("{LIB}/libcuda.so.[0-9].1"), "libcuda.so.1");
    assert!(root.try_look(None, Wanted::default()).is_err());
    root.library(&format!("{LIB}/libcuda.so.{V}"), "libcuda.so.1");
    assert_eq!(root.find().libraries.len(), 1);
    assert!(root.try_look(Some("*.*"), Wanted::default()).is_err());
}

#[test]
fn where_the_management_library_is() {
    let root = Root::new();
    let tree = root.tree("/");
    assert_eq!(management_library(&places(&tree)), None);
    root.library(&format!("{LIB}/libnvidia-ml.so.{V}"), "libnvidia-ml.so.1");
    root.link(
        &format!("{LIB}/libnvidia-ml.so.1"),
        &format!("libnvidia-ml.so.{V}"),
    );
    let found = management_library(&places(&tree)).unwrap();
    assert_eq!(
        found,
        Path::new(&root.0.path().canonicalize().unwrap())
            .join(&format!("{LIB}/libnvidia-ml.so.{V}")[1..])
    );
}
