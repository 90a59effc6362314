//! What a user writes to have a node, in TOML, and how it becomes a [`Machine`].

use serde::Deserialize;

use crate::machine::{Drm, Gpu, GpuFault, Machine, Platform, Switch};
use crate::mig::layout;
use crate::model::{Model, model};
use crate::node::{Node, major};
use crate::tegra::soc_nodes;

/// Most GPUs of a node.
const MOST_GPUS: usize = 16;
/// Largest number of IMEX channels (driver default: 2048).
const MOST_CHANNELS: u32 = 2048;
/// Largest number of `NVSwitch` chips.
const MOST_SWITCHES: u32 = 16;

/// Longest product name that leaves room for a MIG suffix (`NVML_DEVICE_NAME_V2_BUFFER_SIZE`), and serial number
/// (`NVML_DEVICE_SERIAL_BUFFER_SIZE`).
const MOST_NAME: usize = 64;
const MOST_SERIAL: usize = 29;
/// Hotter than any, and larger: 16 TiB.
const MOST_DEGREES: u32 = 200;
const MOST_MIB: u64 = 1 << 24;

/// Bus numbers of an eight-GPU board.
const EIGHT: [&str; 8] = ["17", "2a", "3d", "5d", "9a", "ab", "ba", "db"];
/// Bus numbers of a sixteen-GPU board.
const SIXTEEN: [&str; 16] = [
    "17", "18", "2a", "2b", "3d", "3e", "5d", "5e", "9a", "9b", "ab", "ac", "ba", "bb", "db", "dc",
];

/// Groups `video` and `render` of Debian, which own the nodes of direct rendering.
const VIDEO: u32 = 44;
const RENDER: u32 = 993;

/// Control nodes in the order of a generated spec.
const CONTROL: [(&str, u32, u32); 4] = [
    ("nvidia-modeset", major::NVIDIA, 254),
    ("nvidia-uvm", major::UVM, 0),
    ("nvidia-uvm-tools", major::UVM, 1),
    ("nvidiactl", major::NVIDIA, 255),
];

/// A node as a user describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Description {
    platform: Platform,
    driver: String,
    module: Option<String>,
    cuda: String,
    boot_id: Option<String>,
    drm: bool,
    nvswitches: u32,
    imex_channels: u32,
    persistenced: bool,
    fabricmanager: bool,
    init_error: Option<String>,
    gpu: Vec<GpuDescription>,
}

/// One GPU, or several alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GpuDescription {
    model: String,
    #[serde(default = "one")]
    count: usize,
    name: Option<String>,
    uuid: Option<String>,
    bus_id: Option<String>,
    serial: Option<String>,
    minor: Option<u32>,
    memory_mib: Option<u64>,
    used_mib: Option<u64>,
    temperature: Option<u32>,
    mig: Option<Vec<String>>,
    fault: Option<GpuFault>,
}

fn one() -> usize {
    1
}

impl Default for Description {
    fn default() -> Self {
        Self {
            platform: Platform::Native,
            driver: "550.54.15".to_owned(),
            module: None,
            cuda: "12.4".to_owned(),
            boot_id: None,
            drm: false,
            nvswitches: 0,
            imex_channels: 0,
            persistenced: false,
            fabricmanager: false,
            init_error: None,
            gpu: Vec::new(),
        }
    }
}

impl Description {
    /// Reads TOML.
    ///
    /// # Errors
    /// The cause, with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|err| err.to_string().trim_end().replace('\n', " "))
    }

    /// With another driver version.
    #[must_use]
    pub fn with_driver(mut self, version: &str) -> Self {
        version.clone_into(&mut self.driver);
        self
    }

    /// Settles every number.
    ///
    /// # Errors
    /// What is impossible, contradictory or not known.
    pub fn resolve(self) -> Result<Machine, String> {
        let module_version = self.module.clone().unwrap_or_else(|| self.driver.clone());
        for version in [&self.driver, &module_version, &self.cuda] {
            if !is_version(version) {
                return Err(format!("`{version}` is no version; hint: 550.54.15"));
            }
        }
        self.check_counts()?;
        let gpus = self.gpus()?;
        let mig = gpus.iter().any(|gpu| gpu.mig.is_some());
        let boot_id = || uuid(&format!("boot {} {}", self.driver, gpus.len()));
        Ok(Machine {
            platform: self.platform,
            init_error: self.init_code(&module_version)?,
            module_version,
            boot_id: self.boot_id.clone().unwrap_or_else(boot_id),
            control: self.control(),
            caps: if mig { caps() } else { Vec::new() },
            switches: self.switches(),
            imex: (0..self.imex_channels).map(imex).collect(),
            persistenced: self.persistenced,
            fabricmanager: self.fabricmanager,
            driver_version: self.driver,
            cuda_version: self.cuda,
            gpus,
        })
    }

    fn check_counts(&self) -> Result<(), String> {
        let counts = self.gpu.iter().map(|gpu| gpu.count);
        let gpus = counts.fold(0_usize, usize::saturating_add);
        if gpus > MOST_GPUS {
            return Err(format!(
                "{gpus} GPUs are too many; hint: {MOST_GPUS} at most"
            ));
        }
        if self.imex_channels > MOST_CHANNELS || self.nvswitches > MOST_SWITCHES {
            return Err(format!(
                "at most {MOST_CHANNELS} IMEX channels and {MOST_SWITCHES} NVSwitches"
            ));
        }
        Ok(())
    }

    fn gpus(&self) -> Result<Vec<Gpu>, String> {
        let wanted: Vec<&GpuDescription> = self
            .gpu
            .iter()
            .flat_map(|gpu| std::iter::repeat_n(gpu, gpu.count))
            .collect();
        let buses: &[&str] = if wanted.len() > EIGHT.len() {
            &SIXTEEN
        } else {
            &EIGHT
        };
        let mut gpus = Vec::new();
        for ((n, gpu), bus) in (0..).zip(wanted).zip(buses) {
            if gpu.count > 1 && gpu.is_individual() {
                return Err("uuid, bus-id, serial and minor belong to one GPU; hint: give each GPU its own [[gpu]]".to_owned());
            }
            gpus.push(gpu.resolve(n, bus, self.drm)?);
        }
        unique(&gpus)?;
        Ok(gpus)
    }

    fn control(&self) -> Vec<Node> {
        match self.platform {
            Platform::Wsl => vec![Node::new("dxg", major::MISC, 125)],
            Platform::Tegra => soc_nodes(),
            Platform::Native => CONTROL
                .iter()
                .map(|(name, major, minor)| Node::new(*name, *major, *minor))
                .collect(),
        }
    }

    fn switches(&self) -> Vec<Switch> {
        if self.nvswitches == 0 {
            return Vec::new();
        }
        let chip = |n: u32| Switch {
            bus_id: Some(format!("0000:{:02x}:00.0", 0xc1 + n)),
            node: Node::new(format!("nvidia-nvswitch{n}"), major::NVSWITCH, n),
        };
        let shared = [
            Node::new("nvidia-nvswitchctl", major::NVSWITCH, 255),
            Node::new("nvidia-nvlink", major::NVLINK, 0),
        ];
        let shared = shared.map(|node| Switch { bus_id: None, node });
        (0..self.nvswitches).map(chip).chain(shared).collect()
    }

    /// `nvmlReturn_t` by name, or the mismatch that the versions make.
    fn init_code(&self, module: &str) -> Result<Option<u32>, String> {
        match self.init_error.as_deref() {
            None if module != self.driver => Ok(Some(18)),
            None => Ok(None),
            Some("driver-not-loaded") => Ok(Some(9)),
            Some("no-permission") => Ok(Some(4)),
            Some("irq-issue") => Ok(Some(11)),
            Some("library-mismatch") => Ok(Some(18)),
            Some("unknown") => Ok(Some(999)),
            Some(other) => Err(format!(
                "no init-error `{other}`; hint: driver-not-loaded, no-permission, irq-issue, library-mismatch, unknown"
            )),
        }
    }
}

impl GpuDescription {
    fn is_individual(&self) -> bool {
        self.uuid.is_some()
            || self.bus_id.is_some()
            || self.serial.is_some()
            || self.minor.is_some()
    }

    fn resolve(&self, n: u32, bus: &str, drm: bool) -> Result<Gpu, String> {
        let model = model(&self.model).ok_or_else(|| no_model(&self.model))?;
        let minor = self.minor.unwrap_or(n);
        self.check_limits()?;
        let (bus_id, uuid_of_gpu) = self.identity(model, minor, bus)?;
        Ok(Gpu {
            mig: self.instances(model, minor, &uuid_of_gpu)?,
            uuid: uuid_of_gpu,
            minor,
            model: self.model.clone(),
            name: self.name.clone().unwrap_or_else(|| model.name.to_owned()),
            bus_id,
            memory_mib: self.memory_mib.unwrap_or(model.memory_mib),
            serial: self
                .serial
                .clone()
                .unwrap_or_else(|| format!("16525230{minor:05}")),
            used_mib: self.used_mib.unwrap_or(1),
            temperature: self.temperature.unwrap_or(31 + minor),
            power_milliwatts: 1000 * (model.idle_power + minor),
            power_limit_milliwatts: 1000 * model.power_limit,
            compute_major: model.compute.0,
            compute_minor: model.compute.1,
            node: Node::new(format!("nvidia{minor}"), major::NVIDIA, minor),
            drm: drm.then(|| drm_nodes(n)),
            fault: self.fault,
        })
    }

    /// PCI address and UUID.
    fn identity(&self, model: &Model, minor: u32, bus: &str) -> Result<(String, String), String> {
        let bus_id = self
            .bus_id
            .clone()
            .unwrap_or_else(|| format!("0000:{bus}:00.0"));
        if !is_bus_id(&bus_id) || minor > 254 {
            return Err(format!(
                "PCI address `{bus_id}` or minor {minor} cannot be; hint: 0000:17:00.0"
            ));
        }
        let uuid_of_gpu = self.uuid.clone().unwrap_or_else(|| gpu_uuid(model, minor));
        if !uuid_of_gpu.starts_with("GPU-") || !is_plain(&uuid_of_gpu) {
            return Err(format!("`{uuid_of_gpu}` is no GPU UUID; hint: GPU-…"));
        }
        Ok((bus_id, uuid_of_gpu))
    }

    /// What NVML has room for, and numbers that a GPU can have.
    fn check_limits(&self) -> Result<(), String> {
        let fits = |text: &Option<String>, most: usize| {
            text.as_ref()
                .is_none_or(|text| text.len() <= most && !text.chars().any(char::is_control))
        };
        if !fits(&self.name, MOST_NAME) || !fits(&self.serial, MOST_SERIAL) {
            return Err(format!(
                "name or serial is too long or holds control characters; hint: {MOST_NAME} and {MOST_SERIAL} bytes at most"
            ));
        }
        if self.temperature > Some(MOST_DEGREES) || self.memory_mib > Some(MOST_MIB) {
            return Err(format!(
                "no GPU has that temperature or memory; hint: {MOST_DEGREES} degrees and {MOST_MIB} MiB at most"
            ));
        }
        Ok(())
    }

    fn instances(
        &self,
        model: &Model,
        minor: u32,
        gpu: &str,
    ) -> Result<Option<Vec<crate::mig::GpuInstance>>, String> {
        let Some(wanted) = &self.mig else {
            return Ok(None);
        };
        let family = model
            .mig
            .ok_or_else(|| format!("{} cannot be divided by MIG", model.name))?;
        layout(family, minor, wanted, |what| uuid(&format!("{gpu}/{what}"))).map(Some)
    }
}

fn caps() -> Vec<Node> {
    vec![
        Node::new("nvidia-caps/nvidia-cap1", major::CAPS, 1).guarded(0o400, 0),
        Node::new("nvidia-caps/nvidia-cap2", major::CAPS, 2).guarded(0o444, 0),
    ]
}

fn imex(n: u32) -> Node {
    Node::new(
        format!("nvidia-caps-imex-channels/channel{n}"),
        major::IMEX,
        n,
    )
}

fn drm_nodes(n: u32) -> Drm {
    // card0 is the board management controller's, as on most servers.
    let (card, render) = (n + 1, n + 128);
    Drm {
        card: Node::new(format!("dri/card{card}"), major::DRM, card).guarded(0o660, VIDEO),
        render: Node::new(format!("dri/renderD{render}"), major::DRM, render)
            .guarded(0o660, RENDER),
    }
}

fn no_model(key: &str) -> String {
    let known: Vec<&str> = crate::model::MODELS.iter().map(|m| m.key).collect();
    format!("no GPU model `{key}`; hint: {}", known.join(", "))
}

fn unique(gpus: &[Gpu]) -> Result<(), String> {
    for (n, gpu) in gpus.iter().enumerate() {
        for other in &gpus[..n] {
            if gpu.minor == other.minor || gpu.uuid == other.uuid || gpu.bus_id == other.bus_id {
                return Err(format!(
                    "two GPUs share minor {}, UUID or PCI address {}",
                    gpu.minor, gpu.bus_id
                ));
            }
        }
    }
    Ok(())
}

fn gpu_uuid(model: &Model, minor: u32) -> String {
    let made = uuid(model.key);
    let head = if model.key == "h100" {
        "5fbe0d8a-7d2c-4c1f-9a6e"
    } else {
        &made[..23]
    };
    format!("GPU-{head}-0000000000{minor:02x}")
}

/// A UUID that depends on nothing but `seed` (FNV-1a, twice).
fn uuid(seed: &str) -> String {
    let hash = |start: u64| {
        seed.bytes().fold(start, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let (high, low) = (hash(0xcbf2_9ce4_8422_2325), hash(0x9e37_79b9_7f4a_7c15));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

fn is_version(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// `0000:17:00.0`.
fn is_bus_id(text: &str) -> bool {
    let digits = |part: &str, n: usize| {
        part.len() == n && part.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    };
    let mut parts = text.split([':', '.']);
    [4, 2, 2, 1]
        .iter()
        .all(|n| parts.next().is_some_and(|part| digits(part, *n)))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Result<Machine, String> {
        Description::parse(text).and_then(Description::resolve)
    }

    #[test]
    fn a_description_becomes_a_machine() {
        let machine = made(
            "drm = true\nnvswitches = 2\nimex-channels = 3\n[[gpu]]\nmodel = \"a100\"\ncount = 2\n[[gpu]]\nmodel = \"a100\"\nminor = 7\nmig = [\"1g.5gb\", \"3g.20gb\"]\n",
        )
        .unwrap();
        let minors: Vec<u32> = machine.gpus.iter().map(|gpu| gpu.minor).collect();
        assert_eq!(minors, [0, 1, 7]);
        let instances = machine.gpus[2].mig.as_ref().unwrap();
        assert_eq!(instances[0].node.name, "nvidia-caps/nvidia-cap957");
        assert_eq!(machine.caps.len(), 2);
        assert_eq!(machine.switches.len(), 4);
        assert_eq!(machine.imex[2].name, "nvidia-caps-imex-channels/channel2");
        assert_eq!(machine.gpus[1].drm.as_ref().unwrap().render.minor, 129);
        assert_eq!(machine.init_error, None);
        let text = serde_json::to_string(&machine).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), machine);
    }

    #[test]
    fn another_module_than_the_files_is_a_mismatch() {
        let machine = made("module = \"550.90.07\"\n").unwrap();
        assert_eq!(machine.init_error, Some(18));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, word) in [
            ("colour = 1", "unknown field"),
            ("driver = \"../x\"", "is no version"),
            ("[[gpu]]\nmodel = \"x\"", "no GPU model `x`"),
            ("[[gpu]]\nmodel = \"h100\"\ncount = 17", "too many"),
            (
                "[[gpu]]\nmodel = \"h100\"\ncount = 2\nminor = 1",
                "belong to one GPU",
            ),
            ("[[gpu]]\nmodel = \"l40s\"\nmig = []", "cannot be divided"),
            (
                "[[gpu]]\nmodel = \"h100\"\nbus-id = \"0000:17:00\"",
                "cannot be",
            ),
            (
                "[[gpu]]\nmodel = \"h100\"\nuuid = \"GPU-/etc\"",
                "no GPU UUID",
            ),
            (
                "[[gpu]]\nmodel = \"h100\"\nminor = 1\n[[gpu]]\nmodel = \"h100\"",
                "share minor 1",
            ),
            ("init-error = \"tired\"", "no init-error"),
            ("imex-channels = 5000", "at most"),
            (
                "[[gpu]]\nmodel = \"h100\"\ncount = 9223372036854775807\n[[gpu]]\nmodel = \"h100\"\ncount = 9223372036854775807\n[[gpu]]\nmodel = \"h100\"\ncount = 9",
                "too many",
            ),
            (
                "[[gpu]]\nmodel = \"h100\"\ntemperature = 4294967295",
                "no GPU has",
            ),
            (
                "[[gpu]]\nmodel = \"h100\"\nmemory-mib = 9223372036854775807",
                "no GPU has",
            ),
            (
                "[[gpu]]\nmodel = \"h100\"\nname = \"a\\nb\"",
                "control characters",
            ),
        ] {
            let err = made(text).unwrap_err();
            assert!(err.contains(word), "{text}: {err}");
            assert!(!err.contains('\n'), "{err}");
        }
    }
}
