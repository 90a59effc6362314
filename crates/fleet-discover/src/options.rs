//! What a spec is wanted.

use fleet_cdi::Version;

/// How the devices are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By what the machine is.
    #[default]
    Auto,
    /// From Tegra's lists of files.
    Csv,
    /// The GDRCopy driver's node.
    Gdrcopy,
    /// GPUDirect Storage.
    Gds,
    /// IMEX channels.
    Imex,
    /// Every node of the driver, for tools of administrators.
    Management,
    /// Nodes of InfiniBand.
    Mofed,
    /// GPUs and their partitions.
    Nvml,
    /// NVLink switches.
    Nvswitch,
    /// The Windows Subsystem for Linux.
    Wsl,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 10] = [
        Self::Auto,
        Self::Csv,
        Self::Gdrcopy,
        Self::Gds,
        Self::Imex,
        Self::Management,
        Self::Mofed,
        Self::Nvml,
        Self::Nvswitch,
        Self::Wsl,
    ];

    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Csv => "csv",
            Self::Gdrcopy => "gdrcopy",
            Self::Gds => "gds",
            Self::Imex => "imex",
            Self::Management => "management",
            Self::Mofed => "mofed",
            Self::Nvml => "nvml",
            Self::Nvswitch => "nvswitch",
            Self::Wsl => "wsl",
        }
    }

    /// The vendor where none is given.
    #[must_use]
    pub fn vendor(self) -> &'static str {
        match self {
            Self::Management => "management.nvidia.com",
            _ => "nvidia.com",
        }
    }

    /// The class where none is given.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Imex => "imex-channel",
            Self::Gdrcopy | Self::Gds | Self::Mofed | Self::Nvswitch => self.name(),
            _ => "gpu",
        }
    }
}

/// How devices are named. Several give a device several names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `0`, a partition `1:0`.
    Index,
    /// `gpu0`, `mig1:0`.
    TypeIndex,
    /// `GPU-…`, `MIG-…`.
    Uuid,
}

/// Departures from the usual content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The vendor-neutral OpenGL and OpenCL libraries, too.
    pub explicit_libraries: bool,
    /// Sets GPUs that share the processor's page tables apart, in specs of their own.
    pub coherent: bool,
    /// One device on Tegra, whatever NVML says.
    pub one_csv_device: bool,
    /// No supplementary groups, which need CDI 0.7.0.
    pub no_additional_gids: bool,
    /// No sockets of the driver's daemons.
    pub no_sockets: bool,
    /// 32-bit libraries, too.
    pub compat32: bool,
    /// Specs of nodes alone and of the driver's parts, too.
    pub parts: bool,
}

/// Hooks that specs name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookOptions {
    /// Program of the hooks.
    pub path: String,
    /// Argument of the hook that tells the loader.
    pub ldconfig: Option<String>,
    /// Hooks to leave out; `all` for every one.
    pub disabled: Vec<String>,
    /// Hooks to write although they are left out otherwise.
    pub enabled: Vec<String>,
}

/// Installed by the package; under our runtime it is not started.
pub const HOOK_PROGRAM: &str = "/usr/bin/fleet-nvidia";

impl Default for HookOptions {
    fn default() -> Self {
        Self {
            path: HOOK_PROGRAM.to_owned(),
            ldconfig: None,
            disabled: Vec::new(),
            enabled: Vec::new(),
        }
    }
}

/// When a spec states what it was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamping {
    /// Where the spec needs CDI 0.6.0 anyway: annotations alone would lock older engines out.
    #[default]
    Free,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Tegra's lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// Files, absolute on the machine.
    pub files: Vec<String>,
    /// Links to leave out; `**/name` is any link of that name.
    pub ignore: Vec<String>,
    /// Where Orin containers keep newer CUDA libraries.
    pub compat_root: String,
}

impl Default for CsvOptions {
    fn default() -> Self {
        let dir = "/etc/nvidia-container-runtime/host-files-for-container.d";
        Self {
            files: ["devices", "drivers", "l4t"]
                .map(|name| format!("{dir}/{name}.csv"))
                .to_vec(),
            ignore: Vec::new(),
            compat_root: "/usr/local/cuda/compat_orin".to_owned(),
        }
    }
}

/// What a spec is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How the devices are found.
    pub mode: Mode,
    /// How they are named.
    pub naming: Vec<Naming>,
    /// Which of them: indexes, UUIDs, `gpu:mig`, `all`, `none`.
    pub ids: Vec<String>,
    /// Vendor; by mode when none.
    pub vendor: Option<String>,
    /// Class; by mode when none.
    pub class: Option<String>,
    /// Whether a device `all` is added.
    pub all_device: bool,
    /// Hooks.
    pub hooks: HookOptions,
    /// Departures.
    pub features: Features,
    /// Statement of what it was made from.
    pub stamping: Stamping,
    /// Newest CDI version that the reader knows.
    pub newest: Option<Version>,
    /// Tegra's lists.
    pub csv: CsvOptions,
    /// Directories of libraries that take the place of the usual ones.
    pub library_dirs: Vec<String>,
    /// Directories of configuration that take the place of the usual ones.
    pub config_dirs: Vec<String>,
    /// Name and version of the program that asks, for the statement.
    pub generator: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            naming: vec![Naming::Index, Naming::Uuid],
            ids: vec!["all".to_owned()],
            vendor: None,
            class: None,
            all_device: true,
            hooks: HookOptions::default(),
            features: Features::default(),
            stamping: Stamping::default(),
            newest: None,
            csv: CsvOptions::default(),
            library_dirs: Vec::new(),
            config_dirs: Vec::new(),
            generator: format!("fleet-discover {}", env!("CARGO_PKG_VERSION")),
        }
    }
}
