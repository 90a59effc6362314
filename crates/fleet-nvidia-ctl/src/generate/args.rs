//! Flags of `cdi generate`: the names and environment variables of `nvidia-ctk cdi generate`, and some of our own.

use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args};
use fleet_cdi::{Version, is_qualified};
use fleet_discover::{
    CsvOptions, Features, HOOK_PROGRAM, HookOptions, Mode, Naming, Options, Stamping,
};

use super::GenerateError;
use super::source::Source;

#[derive(Args, Debug)]
pub(crate) struct Generate {
    /// Write to FILE, in one step and readable by everybody (default: standard output)
    #[arg(long, value_name = "FILE", value_parser = path(), env = "NVIDIA_CTK_CDI_OUTPUT_FILE_PATH")]
    output: Option<PathBuf>,
    /// json or yaml (default: by the name of FILE, else yaml)
    #[arg(
        long,
        value_name = "FORMAT",
        env = "NVIDIA_CTK_CDI_GENERATE_OUTPUT_FORMAT"
    )]
    pub(super) format: Option<String>,
    /// auto, csv, gdrcopy, gds, imex, management, mofed, nvml, nvswitch or wsl
    #[arg(
        long,
        visible_alias = "discovery-mode",
        value_name = "MODE",
        default_value = "auto",
        env = "NVIDIA_CTK_CDI_GENERATE_MODE"
    )]
    mode: String,
    /// Name devices by index, uuid or type-index; each adds a name (default: index and uuid)
    #[arg(long, value_name = "STRATEGY", value_delimiter = ',', default_values = ["index", "uuid"], env = "NVIDIA_CTK_CDI_GENERATE_DEVICE_NAME_STRATEGIES")]
    device_name_strategy: Vec<String>,
    /// Root of the driver installation
    #[arg(long, value_name = "DIR", env = "NVIDIA_CTK_DRIVER_ROOT")]
    driver_root: Option<String>,
    /// Root of /dev (default: the driver root)
    #[arg(long, value_name = "DIR", env = "NVIDIA_CTK_DEV_ROOT")]
    dev_root: Option<String>,
    /// Look for libraries in DIR and not in the usual places
    #[arg(
        long,
        value_name = "DIR",
        value_delimiter = ',',
        env = "NVIDIA_CTK_CDI_GENERATE_LIBRARY_SEARCH_PATHS"
    )]
    library_search_path: Vec<String>,
    /// Look for configuration files in DIR and not in the usual places
    #[arg(
        long,
        value_name = "DIR",
        value_delimiter = ',',
        env = "NVIDIA_CTK_CDI_GENERATE_CONFIG_SEARCH_PATHS"
    )]
    config_search_path: Vec<String>,
    /// Program that hooks name
    #[arg(long, alias = "nvidia-ctk-path", value_name = "PATH", default_value = HOOK_PROGRAM, env = "NVIDIA_CTK_CDI_HOOK_PATH")]
    nvidia_cdi_hook_path: String,
    /// Argument of the hook that updates the loader's cache
    #[arg(
        long,
        value_name = "PATH",
        env = "NVIDIA_CTK_CDI_GENERATE_LDCONFIG_PATH"
    )]
    ldconfig_path: Option<String>,
    /// Vendor of the devices (default: nvidia.com, by mode)
    #[arg(
        long,
        alias = "cdi-vendor",
        value_name = "NAME",
        env = "NVIDIA_CTK_CDI_GENERATE_VENDOR"
    )]
    vendor: Option<String>,
    /// Class of the devices (default: gpu, by mode)
    #[arg(
        long,
        alias = "cdi-class",
        value_name = "NAME",
        env = "NVIDIA_CTK_CDI_GENERATE_CLASS"
    )]
    class: Option<String>,
    /// Tegra's lists of files
    #[arg(
        long = "csv.file",
        value_name = "FILE",
        value_delimiter = ',',
        env = "NVIDIA_CTK_CDI_GENERATE_CSV_FILES"
    )]
    csv_file: Vec<String>,
    /// Links of Tegra's lists to leave out
    #[arg(
        long = "csv.ignore-pattern",
        value_name = "PATTERN",
        value_delimiter = ',',
        env = "NVIDIA_CTK_CDI_GENERATE_CSV_IGNORE_PATTERNS"
    )]
    csv_ignore_pattern: Vec<String>,
    /// Where containers for Orin keep newer CUDA libraries
    #[arg(
        long = "csv.compat-container-root",
        value_name = "DIR",
        env = "NVIDIA_CTK_CDI_GENERATE_CSV_CONTAINER_COMPAT_ROOT"
    )]
    csv_compat_container_root: Option<String>,
    /// Leave a hook out; all leaves out every one
    #[arg(
        long,
        alias = "disable-hooks",
        value_name = "HOOK",
        value_delimiter = ',',
        env = "NVIDIA_CTK_CDI_GENERATE_DISABLED_HOOKS"
    )]
    disable_hook: Vec<String>,
    /// Write a hook that is left out otherwise
    #[arg(
        long,
        alias = "enable-hooks",
        value_name = "HOOK",
        value_delimiter = ',',
        env = "NVIDIA_CTK_CDI_GENERATE_ENABLED_HOOKS"
    )]
    enable_hook: Vec<String>,
    /// Switch something on by name
    #[arg(
        long,
        alias = "feature-flags",
        value_name = "FLAG",
        value_delimiter = ',',
        env = "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS"
    )]
    feature_flag: Vec<String>,
    /// Only these devices: index, UUID, gpu:mig, all or none
    #[arg(long, aliases = ["device-ids", "device", "devices"], value_name = "ID", value_delimiter = ',', default_value = "all", env = "NVIDIA_CTK_CDI_GENERATE_DEVICE_IDS")]
    device_id: Vec<String>,
    /// No device `all`
    #[arg(long, action = ArgAction::SetTrue, env = "NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE", value_parser = clap::builder::FalseyValueParser::new())]
    no_all_device: bool,
    /// Newest CDI version that the reader knows, such as 0.5.0; what it does not know is left out and told
    #[arg(long, value_name = "VERSION")]
    cdi_version: Option<String>,
    /// Who tells of the GPUs: nvml, proc, auto (NVML, and proc where it fails) or both (NVML, compared with proc)
    #[arg(long, value_name = "SOURCE", default_value = "auto")]
    pub(super) source: Source,
    /// Directory that holds proc and sys (default: the machine's root)
    #[arg(long, value_name = "DIR")]
    pub(super) system_root: Option<PathBuf>,
    /// Also write specs of nodes alone and of the driver's parts (CLASS-node, CLASS-driver)
    #[arg(long)]
    capability_devices: bool,
    /// 32-bit libraries, too
    #[arg(long)]
    compat32: bool,
    /// State what the spec was made from: auto (where it costs no CDI version), always or never
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    annotations: String,
}

/// Empty words come from empty environment variables.
fn words(list: &[String]) -> Vec<String> {
    let words = list.iter().map(|word| word.trim());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn unknown(what: &str, given: &str, known: &str) -> GenerateError {
    GenerateError::Argument(format!("{what} `{given}` is not known; hint: {known}"))
}

/// An empty path means none, as where a variable is set to nothing.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

impl Generate {
    /// Where to write; standard output when nowhere.
    pub(super) fn output(&self) -> Option<&Path> {
        let path = self.output.as_deref();
        path.filter(|path| !path.as_os_str().is_empty())
    }

    pub(super) fn driver_root(&self) -> Option<&str> {
        given(self.driver_root.as_ref())
    }

    pub(super) fn dev_root(&self) -> Option<&str> {
        given(self.dev_root.as_ref())
    }

    pub(super) fn options(&self) -> Result<Options, GenerateError> {
        let vendor = self.vendor.clone().filter(|name| !name.is_empty());
        let class = self.class.clone().filter(|name| !name.is_empty());
        for (what, name) in [("vendor", &vendor), ("class", &class)] {
            // Vendor and class follow one rule; the whole name tells whether it is kept.
            if let Some(name) = name
                .as_ref()
                .filter(|name| !is_qualified(&format!("{name}/c=d")))
            {
                return Err(GenerateError::Argument(format!(
                    "{what} `{name}` is no CDI name; hint: letters, digits, `_`, `-` and `.`, a letter first"
                )));
            }
        }
        let mut naming = Vec::new();
        for name in words(&self.device_name_strategy) {
            naming.push(self::naming(&name)?);
        }
        Ok(Options {
            mode: self.mode()?,
            naming,
            ids: words(&self.device_id),
            vendor,
            class,
            all_device: !self.no_all_device,
            hooks: self.hooks()?,
            features: self.features()?,
            stamping: self.stamping()?,
            newest: self.newest()?,
            csv: self.csv(),
            library_dirs: absolute("--library-search-path", &self.library_search_path)?,
            config_dirs: absolute("--config-search-path", &self.config_search_path)?,
            ..Options::default()
        })
    }

    fn mode(&self) -> Result<Mode, GenerateError> {
        let wanted = self.mode.to_ascii_lowercase();
        let mode = Mode::ALL.into_iter().find(|mode| mode.name() == wanted);
        mode.ok_or_else(|| {
            let known = Mode::ALL.map(Mode::name).join(", ");
            unknown("mode", &self.mode, &known)
        })
    }

    fn hooks(&self) -> Result<HookOptions, GenerateError> {
        let enabled = words(&self.enable_hook);
        if enabled.iter().any(|name| name == "all") {
            let text = "--enable-hook takes names of hooks, not `all`";
            return Err(GenerateError::Argument(text.to_owned()));
        }
        let path = match self.nvidia_cdi_hook_path.as_str() {
            "" => HOOK_PROGRAM.to_owned(),
            path => path.to_owned(),
        };
        if !path.starts_with('/') {
            return Err(GenerateError::Argument(format!(
                "--nvidia-cdi-hook-path `{path}` is not absolute; engines run it from any directory"
            )));
        }
        Ok(HookOptions {
            path,
            ldconfig: self.ldconfig_path.clone().filter(|path| !path.is_empty()),
            disabled: words(&self.disable_hook),
            enabled,
        })
    }

    fn features(&self) -> Result<Features, GenerateError> {
        let mut features = Features {
            compat32: self.compat32,
            parts: self.capability_devices,
            ..Features::default()
        };
        for flag in words(&self.feature_flag) {
            match flag.as_str() {
                "enable-explicit-driver-libraries" => features.explicit_libraries = true,
                "enable-coherent-annotations" => features.coherent = true,
                "disable-multiple-csv-devices" => features.one_csv_device = true,
                "no-additional-gids-for-device-nodes" => features.no_additional_gids = true,
                "disable-ipc-discoverer" => features.no_sockets = true,
                // That library is not used here.
                "disable-nvsandboxutils" | "disable-nvsandbox-utils" => {}
                other => return Err(unknown("feature flag", other, FLAGS)),
            }
        }
        Ok(features)
    }

    fn stamping(&self) -> Result<Stamping, GenerateError> {
        match self.annotations.as_str() {
            "auto" => Ok(Stamping::Free),
            "always" => Ok(Stamping::Always),
            "never" => Ok(Stamping::Never),
            other => Err(unknown("--annotations", other, "auto, always or never")),
        }
    }

    fn newest(&self) -> Result<Option<Version>, GenerateError> {
        let Some(text) = &self.cdi_version else {
            return Ok(None);
        };
        match Version::parse(text).filter(|version| *version >= Version::V0_3) {
            Some(version) => Ok(Some(version)),
            None => Err(unknown("CDI version", text, "0.3.0 to 1.1.0, as released")),
        }
    }

    fn csv(&self) -> CsvOptions {
        let usual = CsvOptions::default();
        let files = words(&self.csv_file);
        let root = self.csv_compat_container_root.clone();
        CsvOptions {
            files: if files.is_empty() { usual.files } else { files },
            ignore: words(&self.csv_ignore_pattern),
            compat_root: root
                .filter(|dir| !dir.is_empty())
                .unwrap_or(usual.compat_root),
        }
    }
}

const FLAGS: &str = "enable-explicit-driver-libraries, enable-coherent-annotations, disable-multiple-csv-devices, no-additional-gids-for-device-nodes, disable-ipc-discoverer, disable-nvsandboxutils";

fn naming(name: &str) -> Result<Naming, GenerateError> {
    match name {
        "index" => Ok(Naming::Index),
        "uuid" => Ok(Naming::Uuid),
        "type-index" => Ok(Naming::TypeIndex),
        other => Err(unknown(
            "device name strategy",
            other,
            "index, uuid or type-index",
        )),
    }
}

/// Directories of the machine; several in one word as in `PATH`.
fn absolute(flag: &str, list: &[String]) -> Result<Vec<String>, GenerateError> {
    let dirs: Vec<String> = words(list)
        .iter()
        .flat_map(|word| word.split(':').map(str::to_owned))
        .filter(|dir| !dir.is_empty())
        .collect();
    match dirs.iter().find(|dir| !dir.starts_with('/')) {
        Some(dir) => Err(GenerateError::Argument(format!(
            "{flag} `{dir}` is not absolute"
        ))),
        None => Ok(dirs),
    }
}
