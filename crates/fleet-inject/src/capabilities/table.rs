//! Which part of the driver a file or a device node belongs to, by its name alone.
//!
//! The libraries, programs and nodes are those of NVIDIA's container CLI; what newer drivers brought since stands where
//! what needs it stands. A file that several parts need is in all of them. A name that is not here belongs to every
//! part: a new driver may bring a library that CUDA cannot do without.

use super::Capabilities;

const COMPUTE: Capabilities = Capabilities::COMPUTE;
const UTILITY: Capabilities = Capabilities::UTILITY;
const VIDEO: Capabilities = Capabilities::VIDEO;
/// Both names mean the same files.
const GRAPHICS: Capabilities = Capabilities::GRAPHICS.with(Capabilities::DISPLAY);

/// Base names of libraries: what stands before `.so`.
const LIBRARIES: [(Capabilities, &[&str]); 8] = [
    (UTILITY, &["libnvidia-ml", "libnvidia-nscq"]),
    (UTILITY.with(GRAPHICS), &["libnvidia-cfg"]),
    (
        COMPUTE,
        &[
            "libOpenCL",
            "libcuda",
            "libcudadebugger",
            "libnvidia-compiler",
            "libnvidia-fatbinaryloader",
            "libnvidia-nvvm",
            "libnvidia-nvvm70",
            "libnvidia-opencl",
            "libnvidia-pkcs11",
            "libnvidia-pkcs11-openssl3",
            "libnvidia-tileiras",
        ],
    ),
    (
        COMPUTE.with(GRAPHICS),
        &[
            "libnvidia-allocator",
            "libnvidia-gpucomp",
            "libnvidia-ptxjitcompiler",
        ],
    ),
    (
        VIDEO,
        &[
            "libnvcuvid",
            "libnvidia-encode",
            "libnvidia-opticalflow",
            "libvdpau_nvidia",
        ],
    ),
    (
        GRAPHICS,
        &[
            "libEGL",
            "libEGL_nvidia",
            "libGL",
            "libGLESv1_CM",
            "libGLESv1_CM_nvidia",
            "libGLESv2",
            "libGLESv2_nvidia",
            "libGLX",
            "libGLX_indirect",
            "libGLX_nvidia",
            "libGLdispatch",
            "libOpenGL",
            "libglxserver_nvidia",
            "libnvidia-cbl",
            "libnvidia-egl-gbm",
            "libnvidia-egl-wayland",
            "libnvidia-egl-wayland2",
            "libnvidia-egl-xcb",
            "libnvidia-egl-xlib",
            "libnvidia-eglcore",
            "libnvidia-fbc",
            "libnvidia-glcore",
            "libnvidia-glsi",
            "libnvidia-glvkspirv",
            "libnvidia-gtk2",
            "libnvidia-gtk3",
            "libnvidia-ifr",
            "libnvidia-present",
            "libnvidia-rtcore",
            "libnvidia-tls",
            "libnvidia-vulkan-producer",
            "libnvidia-wayland-client",
            "libnvoptix",
            "nvidia-drm_gbm",
            "nvidia_drv",
        ],
    ),
    (Capabilities::NGX, &["libnvidia-ngx"]),
    (GRAPHICS.with(Capabilities::NGX), &["libnvidia-api"]),
];

/// Programs, data files and the names of sockets' directories, wherever they lie.
const FILES: [(Capabilities, &[&str]); 3] = [
    (
        UTILITY,
        &[
            "nv-fabricmanager",
            "nvidia-debugdump",
            "nvidia-persistenced",
            "nvidia-smi",
        ],
    ),
    (
        COMPUTE,
        &[
            "nvidia-cuda-mps-control",
            "nvidia-cuda-mps-server",
            "nvidia-mps",
            "nvidia.icd",
        ],
    ),
    (
        GRAPHICS,
        &[
            "09_nvidia_wayland2.json",
            "10-nvidia.conf",
            "10_nvidia.json",
            "10_nvidia_wayland.json",
            "15_nvidia_gbm.json",
            "20_nvidia_xcb.json",
            "20_nvidia_xlib.json",
            "nvidia-drm-outputclass.conf",
            "nvidia-xconfig",
            "nvidia_icd.aarch64.json",
            "nvidia_icd.json",
            "nvidia_icd.x86_64.json",
            "nvidia_layers.json",
            "nvoptix.bin",
        ],
    ),
];

/// Whole paths that stand for themselves.
const PATHS: [(&str, Capabilities); 7] = [
    ("/dev/nvidia-uvm", COMPUTE),
    ("/dev/nvidia-uvm-tools", COMPUTE),
    ("/dev/nvidia-modeset", GRAPHICS),
    ("/run/nvidia-persistenced/socket", UTILITY),
    ("/run/nvidia-fabricmanager/socket", UTILITY),
    ("/var/run/nvidia-persistenced/socket", UTILITY),
    ("/var/run/nvidia-fabricmanager/socket", UTILITY),
];

/// The parts that need the file at `path`; none means all of them.
pub(super) fn parts(path: &str) -> Capabilities {
    if path == "/dev/dri" || path.starts_with("/dev/dri/") {
        return GRAPHICS;
    }
    if let Some((_, parts)) = PATHS.iter().find(|(known, _)| *known == path) {
        return *parts;
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let named = |table: &[(Capabilities, &[&str])], name: &str| {
        let entry = table.iter().find(|(_, names)| names.contains(&name));
        entry.map(|(parts, _)| *parts)
    };
    let library = name
        .split_once(".so")
        .filter(|(_, rest)| rest.is_empty() || rest.starts_with('.'));
    let found = match library {
        Some((base, _)) => named(&LIBRARIES, base),
        None => named(&FILES, name),
    };
    found.unwrap_or(Capabilities::NONE)
}

/// Whether a library lies where a distribution keeps those of 32 bits. `/usr/lib` is such a place only where 64-bit
/// libraries lie in `/usr/lib64`.
pub(super) fn is_32_bit(path: &str, has_lib64: bool) -> bool {
    let mut dirs = path.split('/').rev().skip(1);
    let named = dirs.any(|dir| {
        matches!(
            dir,
            "i386-linux-gnu" | "i686-linux-gnu" | "arm-linux-gnueabihf" | "lib32"
        )
    });
    let in_lib = path.starts_with("/usr/lib/") || path.starts_with("/lib/");
    let is_library = path.contains(".so");
    is_library && (named || (has_lib64 && in_lib && !path.contains("-linux-gnu/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_up_to_their_version() {
        let cases = [
            ("/usr/lib64/libcuda.so.580.65.06", "compute"),
            ("/usr/lib64/libcuda.so", "compute"),
            ("/usr/lib/wsl/drivers/x/libcuda.so.1.1", "compute"),
            ("/usr/lib64/libcudadebugger.so.1", "compute"),
            ("/usr/lib64/libnvidia-nvvm70.so.4", "compute"),
            ("/usr/lib64/libnvidia-ml.so.1", "utility"),
            ("/usr/lib64/libnvidia-encode.so.580.65.06", "video"),
            ("/usr/lib64/vdpau/libvdpau_nvidia.so.580.65.06", "video"),
            ("/usr/lib64/libGLX_indirect.so.0", "display,graphics"),
            ("/usr/lib64/gbm/nvidia-drm_gbm.so", "display,graphics"),
            (
                "/usr/lib64/libnvidia-allocator.so.1",
                "compute,display,graphics",
            ),
            ("/usr/lib64/libnvidia-ngx.so.580.65.06", "ngx"),
            ("/usr/bin/nvidia-smi", "utility"),
            ("/tmp/nvidia-mps", "compute"),
            ("/etc/vulkan/icd.d/nvidia_icd.json", "display,graphics"),
            ("/etc/OpenCL/vendors/nvidia.icd", "compute"),
            ("/dev/nvidia-uvm-tools", "compute"),
            ("/dev/nvidia-modeset", "display,graphics"),
            ("/dev/dri/renderD128", "display,graphics"),
            ("/run/nvidia-persistenced/socket", "utility"),
            // For all: the driver itself, and what a future driver may bring.
            ("/dev/nvidia0", ""),
            ("/dev/nvidiactl", ""),
            ("/dev/nvidia-caps/nvidia-cap3", ""),
            ("/lib/firmware/nvidia/580.65.06/gsp_ga10x.bin", ""),
            ("/usr/lib64/libnvidia-future.so.999.1", ""),
            ("/usr/lib64/libcuda.sonata", ""),
            ("/opt/dri/card0", ""),
            ("", ""),
        ];
        for (path, want) in cases {
            assert_eq!(parts(path).to_string(), want, "{path}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let names = |table: &[(Capabilities, &[&'static str])]| -> Vec<&'static str> {
            table
                .iter()
                .flat_map(|(_, names)| names.iter().copied())
                .collect()
        };
        for mut all in [names(&LIBRARIES), names(&FILES)] {
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }

    #[test]
    fn places_of_32_bit_libraries() {
        let cases = [
            ("/usr/lib/i386-linux-gnu/libcuda.so.1", false, true),
            ("/usr/lib32/libcuda.so.1", false, true),
            ("/usr/lib32/vdpau/libvdpau_nvidia.so.1", false, true),
            ("/usr/lib/libcuda.so.1", true, true),
            ("/usr/lib/libcuda.so.1", false, false),
            ("/usr/lib/x86_64-linux-gnu/libcuda.so.1", true, false),
            ("/usr/lib64/libcuda.so.1", true, false),
            ("/lib/firmware/nvidia/1/gsp.bin", true, false),
        ];
        for (path, has_lib64, want) in cases {
            assert_eq!(is_32_bit(path, has_lib64), want, "{path}");
        }
    }
}
