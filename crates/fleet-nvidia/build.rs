//! How the runtime is linked: relative relocations in their packed form take a few kB instead of half a MB of a file that
//! is executed several times per container. A linker that does not know it says so and goes on.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
