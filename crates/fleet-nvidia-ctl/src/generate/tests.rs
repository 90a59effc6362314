use clap::{CommandFactory, Parser};

use super::*;
use crate::cli::{Cdi, Command};

fn typed(args: &[&str]) -> Result<Box<Generate>, clap::Error> {
    let start = ["fleet-nvidia-ctl", "cdi", "generate"];
    let cli = Cli::try_parse_from(start.iter().chain(args))?;
    match cli.command {
        Command::Cdi(Cdi::Generate(args)) => Ok(args),
        other => panic!("{other:?}"),
    }
}

fn options(args: &[&str]) -> Result<fleet_discover::Options, String> {
    typed(args)
        .unwrap()
        .options()
        .map_err(|err| err.to_string())
}

/// Every flag of the toolkit's command, its other spellings, and its variable.
const FLAGS: [(&str, &[&str], &str); 20] = [
    ("output", &[], "NVIDIA_CTK_CDI_OUTPUT_FILE_PATH"),
    ("format", &[], "NVIDIA_CTK_CDI_GENERATE_OUTPUT_FORMAT"),
    ("mode", &["discovery-mode"], "NVIDIA_CTK_CDI_GENERATE_MODE"),
    (
        "device-name-strategy",
        &[],
        "NVIDIA_CTK_CDI_GENERATE_DEVICE_NAME_STRATEGIES",
    ),
    ("driver-root", &[], "NVIDIA_CTK_DRIVER_ROOT"),
    ("dev-root", &[], "NVIDIA_CTK_DEV_ROOT"),
    (
        "library-search-path",
        &[],
        "NVIDIA_CTK_CDI_GENERATE_LIBRARY_SEARCH_PATHS",
    ),
    (
        "config-search-path",
        &[],
        "NVIDIA_CTK_CDI_GENERATE_CONFIG_SEARCH_PATHS",
    ),
    (
        "nvidia-cdi-hook-path",
        &["nvidia-ctk-path"],
        "NVIDIA_CTK_CDI_HOOK_PATH",
    ),
    (
        "ldconfig-path",
        &[],
        "NVIDIA_CTK_CDI_GENERATE_LDCONFIG_PATH",
    ),
    ("vendor", &["cdi-vendor"], "NVIDIA_CTK_CDI_GENERATE_VENDOR"),
    ("class", &["cdi-class"], "NVIDIA_CTK_CDI_GENERATE_CLASS"),
    ("csv.file", &[], "NVIDIA_CTK_CDI_GENERATE_CSV_FILES"),
    (
        "csv.ignore-pattern",
        &[],
        "NVIDIA_CTK_CDI_GENERATE_CSV_IGNORE_PATTERNS",
    ),
    (
        "csv.compat-container-root",
        &[],
        "NVIDIA_CTK_CDI_GENERATE_CSV_CONTAINER_COMPAT_ROOT",
    ),
    (
        "disable-hook",
        &["disable-hooks"],
        "NVIDIA_CTK_CDI_GENERATE_DISABLED_HOOKS",
    ),
    (
        "enable-hook",
        &["enable-hooks"],
        "NVIDIA_CTK_CDI_GENERATE_ENABLED_HOOKS",
    ),
    (
        "feature-flag",
        &["feature-flags"],
        "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS",
    ),
    (
        "device-id",
        &["device-ids", "device", "devices"],
        "NVIDIA_CTK_CDI_GENERATE_DEVICE_IDS",
    ),
    (
        "no-all-device",
        &[],
        "NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE",
    ),
];

#[test]
fn the_toolkits_flags_and_variables() {
    let command = Cli::command();
    let generate = command
        .find_subcommand("cdi")
        .and_then(|cdi| cdi.find_subcommand("generate"));
    let generate = generate.unwrap();
    for (flag, others, variable) in FLAGS {
        let arg = generate
            .get_arguments()
            .find(|arg| arg.get_long() == Some(flag));
        let arg = arg.unwrap_or_else(|| panic!("--{flag} is missing"));
        let told = arg.get_env().and_then(|name| name.to_str());
        assert_eq!(told, Some(variable), "--{flag}");
        let aliases = arg.get_all_aliases().unwrap_or_default();
        assert!(
            others.iter().all(|other| aliases.contains(other)),
            "--{flag}: {aliases:?}"
        );
    }
}

#[test]
fn what_is_typed_is_what_is_wanted() {
    let usual = options(&[]).unwrap();
    assert_eq!(
        usual.naming,
        [fleet_discover::Naming::Index, fleet_discover::Naming::Uuid]
    );
    assert_eq!(
        (usual.ids, usual.all_device),
        (vec!["all".to_owned()], true)
    );
    assert_eq!(usual.hooks.path, "/usr/bin/fleet-nvidia");
    assert_eq!(usual.csv.files.len(), 3);
    let args = [
        "--mode",
        "GDS",
        "--device-name-strategy",
        "type-index",
        "--device-id",
        "0,1:0",
        "--device-id",
        "GPU-x",
        "--no-all-device",
        "--vendor",
        "v.example",
        "--class",
        "c",
        "--disable-hooks",
        "chmod,all",
        "--enable-hook",
        "create-symlinks",
        "--feature-flags",
        "disable-ipc-discoverer,disable-nvsandbox-utils",
        "--cdi-version",
        "v0.6.0",
        "--library-search-path",
        "/a:/b",
        "--csv.file",
        "/x.csv",
        "--csv.compat-container-root",
        "/compat",
        "--nvidia-ctk-path",
        "/opt/nvidia-ctk",
        "--compat32",
        "--config-search-path",
        "/c",
        "--ldconfig-path",
        "/sbin/ldconfig.real",
        "--csv.ignore-pattern",
        "**/a,/b",
        "--capability-devices",
        "--annotations",
        "always",
        "--driver-root",
        "/run/nvidia/driver",
        "--dev-root",
        "/",
    ];
    let got = options(&args).unwrap();
    assert_eq!(got.naming, [fleet_discover::Naming::TypeIndex]);
    assert_eq!(got.config_dirs, ["/c"]);
    assert_eq!(got.hooks.ldconfig.as_deref(), Some("/sbin/ldconfig.real"));
    assert_eq!(got.csv.ignore, ["**/a", "/b"]);
    assert!(got.features.parts);
    assert_eq!(got.stamping, fleet_discover::Stamping::Always);
    let typed = typed(&args).unwrap();
    assert_eq!(
        (typed.driver_root(), typed.dev_root()),
        (Some("/run/nvidia/driver"), Some("/"))
    );
    for (flag, is_on) in [
        (
            "enable-explicit-driver-libraries",
            (|features| features.explicit_libraries) as fn(fleet_discover::Features) -> bool,
        ),
        ("enable-coherent-annotations", |features| features.coherent),
        ("disable-multiple-csv-devices", |features| {
            features.one_csv_device
        }),
        ("no-additional-gids-for-device-nodes", |features| {
            features.no_additional_gids
        }),
        ("disable-ipc-discoverer", |features| features.no_sockets),
    ] {
        let got = options(&["--feature-flag", flag]).unwrap().features;
        assert!(
            is_on(got) && !is_on(fleet_discover::Features::default()),
            "{flag}"
        );
    }
    for flag in ["disable-nvsandboxutils", "disable-nvsandbox-utils"] {
        let got = options(&["--feature-flag", flag]).unwrap().features;
        assert_eq!(got, fleet_discover::Features::default(), "{flag}");
    }
    assert_eq!(got.mode, fleet_discover::Mode::Gds);
    assert_eq!(got.ids, ["0", "1:0", "GPU-x"]);
    assert_eq!(
        (got.vendor.as_deref(), got.class.as_deref()),
        (Some("v.example"), Some("c"))
    );
    assert_eq!(
        (got.hooks.disabled, got.hooks.enabled),
        (
            vec!["chmod".to_owned(), "all".to_owned()],
            vec!["create-symlinks".to_owned()]
        )
    );
    assert!(!got.all_device && got.features.no_sockets && got.features.compat32);
    assert_eq!(got.newest, Some(fleet_cdi::Version::V0_6));
    assert_eq!(
        (got.library_dirs, got.csv.files),
        (
            vec!["/a".to_owned(), "/b".to_owned()],
            vec!["/x.csv".to_owned()]
        )
    );
    assert_eq!(
        (got.csv.compat_root.as_str(), got.hooks.path.as_str()),
        ("/compat", "/opt/nvidia-ctk")
    );
}

#[test]
fn mistakes_are_one_line_with_a_hint() {
    for (args, word) in [
        (
            &["--mode", "x"][..],
            "mode `x` is not known; hint: auto, csv",
        ),
        (
            &["--device-name-strategy", "x"],
            "hint: index, uuid or type-index",
        ),
        (
            &["--feature-flag", "x"],
            "feature flag `x` is not known; hint: enable-explicit",
        ),
        (&["--cdi-version", "0.5"], "CDI version `0.5` is not known"),
        (&["--cdi-version", "0.2.0"], "hint: 0.3.0 to 1.1.0"),
        (&["--annotations", "x"], "hint: auto, always or never"),
        (&["--enable-hook", "all"], "--enable-hook takes names"),
        (
            &["--nvidia-cdi-hook-path", "nvidia-cdi-hook"],
            "is not absolute",
        ),
        (
            &["--library-search-path", "lib"],
            "--library-search-path `lib` is not absolute",
        ),
        (&["--vendor", "1x"], "vendor `1x` is no CDI name"),
        (&["--class", "a/b"], "class `a/b` is no CDI name"),
    ] {
        let err = options(args).unwrap_err();
        assert!(
            err.starts_with("generate a CDI spec: ") && err.contains(word) && !err.contains('\n'),
            "{err}"
        );
    }
    assert_eq!(typed(&["--source", "x"]).unwrap_err().exit_code(), 2);
}

#[test]
fn the_format_is_told_or_read_off_the_name() {
    let of = |args: &[&str]| {
        let args = typed(args).unwrap();
        format(&args, args.output()).map_err(|err| err.to_string())
    };
    assert_eq!(of(&[]), Ok(Format::Yaml));
    assert_eq!(of(&["--output", "/x/a.JSON"]), Ok(Format::Json));
    assert_eq!(of(&["--output", "/x/a.yml"]), Ok(Format::Yaml));
    assert_eq!(
        of(&["--output", "/x/a.json", "--format", "YAML"]),
        Ok(Format::Yaml)
    );
    assert!(
        of(&["--format", "xml"])
            .unwrap_err()
            .contains("`xml` is not known; hint: json or yaml")
    );
}

#[test]
fn variables_that_are_set_to_nothing_count_as_unset() {
    let args = [
        "--output",
        "",
        "--driver-root",
        "",
        "--dev-root",
        "",
        "--vendor",
        "",
        "--class",
        "",
        "--nvidia-cdi-hook-path",
        "",
        "--ldconfig-path",
        "",
        "--csv.file",
        "",
        "--disable-hook",
        "",
        "--feature-flag",
        "",
        "--library-search-path",
        "",
    ];
    let typed = typed(&args).unwrap();
    assert_eq!(
        (typed.output(), typed.driver_root(), typed.dev_root()),
        (None, None, None)
    );
    let usual = typed_options(&typed);
    assert_eq!(usual, options(&[]).unwrap());
}

fn typed_options(args: &Generate) -> fleet_discover::Options {
    args.options().unwrap()
}

#[test]
fn names_of_further_files() {
    for (name, infix, want) in [
        ("/etc/cdi/nvidia.yaml", "", "/etc/cdi/nvidia.yaml"),
        (
            "/etc/cdi/nvidia.yaml",
            ".coherent",
            "/etc/cdi/nvidia.coherent.yaml",
        ),
        ("nvidia.com.json", ".node", "nvidia.com.node.json"),
        ("/x/nvidia", ".driver", "/x/nvidia.driver"),
    ] {
        assert_eq!(with_infix(Path::new(name), infix), Path::new(want));
    }
}

/// A machine for a mode that needs no GPU.
fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("etc/nvidia-container-runtime")).unwrap();
    dir
}

fn ran(root: &Path, args: &[&str]) -> (Result<Verdict, String>, String, String) {
    let start = [
        "fleet-nvidia-ctl",
        "--root-dir",
        root.to_str().unwrap(),
        "cdi",
        "generate",
    ];
    let cli = Cli::try_parse_from(start.iter().chain(args)).unwrap();
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    let verdict = crate::run(&cli, &mut out, &mut remarks).map_err(|err| err.to_string());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (verdict, text(out), text(remarks))
}

#[test]
fn a_machine_without_the_device_writes_nothing() {
    let dir = machine();
    let file = dir.path().join("out/gds.yaml");
    let (verdict, out, _) = ran(
        dir.path(),
        &["--mode", "gds", "--output", file.to_str().unwrap()],
    );
    assert!(
        verdict
            .unwrap_err()
            .contains("find devices in mode gds: there is no /dev/nvidia-fs*")
    );
    assert!(out.is_empty() && !dir.path().join("out").exists());
}

#[test]
fn the_toolkits_configuration_tells_the_driver_root() {
    let dir = machine();
    let config = dir.path().join("etc/nvidia-container-runtime/config.toml");
    std::fs::write(
        &config,
        "[nvidia-container-cli]\nroot = \"/run/nvidia/driver\"\n",
    )
    .unwrap();
    let (verdict, ..) = ran(dir.path(), &["--mode", "gds"]);
    assert!(
        verdict.unwrap_err().contains("open the driver root"),
        "there is no such directory"
    );
    std::fs::create_dir_all(dir.path().join("run/nvidia/driver")).unwrap();
    let (verdict, ..) = ran(dir.path(), &["--mode", "gds"]);
    assert!(
        verdict
            .unwrap_err()
            .contains("/run/nvidia/driver/dev/nvidia-fs*")
    );
    let (verdict, ..) = ran(dir.path(), &["--mode", "gds", "--driver-root", "/"]);
    assert!(
        verdict.unwrap_err().contains("there is no /dev/nvidia-fs*"),
        "the flag wins"
    );
    std::fs::write(config, "not toml [").unwrap();
    let (verdict, ..) = ran(dir.path(), &["--mode", "gds"]);
    assert!(verdict.unwrap_err().contains("there is no /dev/nvidia-fs*"));
}
