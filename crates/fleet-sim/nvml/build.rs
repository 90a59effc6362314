//! Programs ask for the library by the soname of the driver's own, and for functions that are not simulated. Those exist
//! and answer "not supported".

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    println!("cargo:rerun-if-changed=symbols.txt");
    println!("cargo:rerun-if-changed=src/abi");
    let ours = simulated(Path::new("src/abi"))?;
    let absent: String = fs::read_to_string("symbols.txt")?
        .lines()
        .filter(|name| !ours.contains(*name))
        .map(|name| {
            format!(
                "#[unsafe(no_mangle)] pub extern \"C\" fn {name}() -> u32 {{ crate::session::code::NOT_SUPPORTED }}\n"
            )
        })
        .collect();
    let dir = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(Path::new(&dir).join("absent.rs"), absent)
}

/// Names of the functions in the `export!` blocks of a directory: words before a parenthesis at a line's start.
fn simulated(dir: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        for line in fs::read_to_string(entry?.path())?.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("pub extern \"C\" fn ").unwrap_or(line);
            if let Some((name, _)) = line.split_once('(')
                && name.starts_with("nvml")
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            {
                names.insert(name.to_owned());
            }
        }
    }
    Ok(names)
}
