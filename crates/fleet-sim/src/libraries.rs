//! What a full driver package of the 550 series installs.

/// A library: base name, SONAME suffix (`lib<name>.so.<suffix>`; empty for none), and whether a plain `.so` link exists.
pub(crate) struct Library {
    pub(crate) name: &'static str,
    pub(crate) soname: &'static str,
    pub(crate) plain: bool,
}

const fn library(name: &'static str, soname: &'static str, plain: bool) -> Library {
    Library {
        name,
        soname,
        plain,
    }
}

/// Versioned with the driver, in `/usr/lib/x86_64-linux-gnu`.
pub(crate) const DRIVER: [Library; 29] = [
    library("libEGL_nvidia", "0", false),
    library("libGLESv1_CM_nvidia", "1", false),
    library("libGLESv2_nvidia", "2", false),
    library("libGLX_nvidia", "0", false),
    library("libcuda", "1", true),
    library("libcudadebugger", "1", false),
    library("libnvcuvid", "1", true),
    library("libnvidia-allocator", "1", true),
    library("libnvidia-cfg", "1", true),
    library("libnvidia-eglcore", "", false),
    library("libnvidia-encode", "1", true),
    library("libnvidia-fbc", "1", true),
    library("libnvidia-glcore", "", false),
    library("libnvidia-glsi", "", false),
    library("libnvidia-glvkspirv", "", false),
    library("libnvidia-gpucomp", "", false),
    library("libnvidia-ml", "1", true),
    library("libnvidia-ngx", "1", false),
    library("libnvidia-nscq", "2", false),
    library("libnvidia-nvvm", "4", true),
    library("libnvidia-opencl", "1", false),
    library("libnvidia-opticalflow", "1", true),
    library("libnvidia-pkcs11", "", false),
    library("libnvidia-pkcs11-openssl3", "", false),
    library("libnvidia-ptxjitcompiler", "1", true),
    library("libnvidia-rtcore", "", false),
    library("libnvidia-tls", "", false),
    library("libnvidia-wayland-client", "", false),
    library("libnvoptix", "1", false),
];

/// Libraries with versions of their own: file name, SONAME.
pub(crate) const OTHER: [(&str, &str); 2] = [
    ("libnvidia-egl-gbm.so.1.1.1", "libnvidia-egl-gbm.so.1"),
    (
        "libnvidia-egl-wayland.so.1.1.13",
        "libnvidia-egl-wayland.so.1",
    ),
];

/// Programs beside `nvidia-smi`.
pub(crate) const PROGRAMS: [&str; 4] = [
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-debugdump",
    "nvidia-persistenced",
];

/// Configuration files: path, content.
pub(crate) const FILES: [(&str, &str); 5] = [
    ("etc/OpenCL/vendors/nvidia.icd", "libnvidia-opencl.so.1\n"),
    (
        "etc/vulkan/icd.d/nvidia_icd.json",
        "{\"file_format_version\": \"1.0.0\", \"ICD\": {\"library_path\": \"libGLX_nvidia.so.0\", \"api_version\": \"1.3.277\"}}\n",
    ),
    (
        "etc/vulkan/implicit_layer.d/nvidia_layers.json",
        "{\"file_format_version\": \"1.0.0\", \"layers\": []}\n",
    ),
    (
        "usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        "{\"file_format_version\": \"1.0.0\", \"ICD\": {\"library_path\": \"libEGL_nvidia.so.0\"}}\n",
    ),
    (
        "usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
        "{\"file_format_version\": \"1.0.0\", \"ICD\": {\"library_path\": \"libnvidia-egl-gbm.so.1\"}}\n",
    ),
];

/// Where libraries lie.
pub(crate) const LIBDIR: &str = "usr/lib/x86_64-linux-gnu";
