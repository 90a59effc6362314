//! Functions that are not simulated. C passes arguments in registers and clears its own stack: a function without
//! parameters can be called with any.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/absent.rs"));

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::process::Command;

    /// Functions of the driver's library that the bindings do not have: one undocumented, two with old names.
    const MORE: [&str; 3] = [
        "nvmlGetBlacklistDeviceCount",
        "nvmlGetBlacklistDeviceInfoByIndex",
        "nvmlInternalGetExportTable",
    ];

    /// The source of `nvml-wrapper-sys`, where cargo has it.
    fn bindings() -> String {
        // Crates for other platforms are not there.
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let out = Command::new(env!("CARGO"))
            .args(["metadata", "--offline", "--format-version", "1"])
            .args(["--filter-platform", &platform])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let all: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let packages = all["packages"].as_array().unwrap();
        let ours = packages
            .iter()
            .find(|package| package["name"] == "nvml-wrapper-sys")
            .unwrap();
        let manifest = PathBuf::from(ours["manifest_path"].as_str().unwrap());
        std::fs::read_to_string(manifest.with_file_name("src").join("bindings.rs")).unwrap()
    }

    #[test]
    fn every_function_of_the_bindings_exists() {
        let text = bindings();
        let names: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub unsafe fn nvml"))
            .filter_map(|rest| rest.split('(').next())
            .collect();
        let wanted: BTreeSet<String> = names
            .into_iter()
            .map(|name| format!("nvml{name}"))
            .chain(MORE.map(str::to_owned))
            .collect();
        let wanted: String = wanted.into_iter().map(|name| name + "\n").collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/symbols.txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let had = std::fs::read_to_string(path).unwrap();
        assert_eq!(had, wanted, "{path}: UPDATE=1 rewrites it");
    }
}
