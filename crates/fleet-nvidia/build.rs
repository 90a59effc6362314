//! How the runtime is linked. Relative relocations in their packed form take a few kB instead of half a MB of a file that is
//! executed several times per container; a linker that does not know it says so and goes on. Where a panic ends the
//! process, as in all profiles that are shipped or tested, tables for unwinding are left out.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    if of("PROFILE") == "release" {
        println!("cargo:rerun-if-changed=no-unwind.ld");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!(
            "cargo:rustc-link-arg-bins=-Wl,-T,{}/no-unwind.ld",
            of("CARGO_MANIFEST_DIR")
        );
    }
}
