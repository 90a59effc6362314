//! `fleet-nvidia-ctl`: shows and checks what the runtime does with CDI devices. Arguments and exit codes only; what is
//! printed comes from the libraries that the runtime uses itself.
#![forbid(unsafe_code)]

mod cdi;
mod cli;
mod config;
mod configure;
#[cfg(feature = "docgen")]
mod docgen;
mod doctor;
mod explain;
mod files;
mod generate;
mod gpus;
mod node;
mod simulate;
mod system;
mod toml_file;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// How a command ended, if it could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing to complain about.
    Fine,
    /// It was printed what could be better.
    Warned,
    /// It was printed what is wrong.
    Faulty,
}

/// A command that could not be carried out.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error(transparent)]
    Inject(#[from] fleet_host::InjectError),
    #[error(transparent)]
    Config(#[from] fleet_host::ConfigError),
    #[error(transparent)]
    ChangeConfig(#[from] config::ChangeError),
    #[error(transparent)]
    Simulate(#[from] fleet_sim::SimError),
    #[error(transparent)]
    Configure(#[from] configure::ConfigureError),
    #[error(transparent)]
    Node(#[from] node::NodeError),
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error("{0}")]
    Asked(String),
    #[error("print JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Name(#[from] fleet_cdi::NameError),
    #[error(transparent)]
    Spec(#[from] fleet_cdi::SpecError),
    #[error(transparent)]
    WriteSpec(#[from] fleet_cdi::WriteError),
    #[error(transparent)]
    Generate(#[from] generate::GenerateError),
    #[error(transparent)]
    Refresh(#[from] generate::RefreshError),
    #[error(transparent)]
    System(#[from] system::SystemError),
    #[error("read {path}: {cause}")]
    Read { path: String, cause: String },
    #[error("write the output: {0}")]
    Write(#[from] io::Error),
}

fn main() -> ExitCode {
    #[cfg(feature = "docgen")]
    if let Some(code) = docgen::intercept() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            // Nobody is left to tell if even this cannot be written.
            let _ = err.print();
            return ExitCode::from(if err.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&cli, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Faulty) => ExitCode::FAILURE,
        Ok(Verdict::Warned) => ExitCode::from(3),
        // The reader has seen enough: `fleet-nvidia-ctl cdi list | head -1`.
        Err(CtlError::Write(err)) if err.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(err) => {
            let _ = writeln!(io::stderr().lock(), "fleet-nvidia-ctl: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Results go to `out`, remarks that no program should read to `remarks`.
fn run(cli: &Cli, out: &mut dyn Write, remarks: &mut dyn Write) -> Result<Verdict, CtlError> {
    match &cli.command {
        Command::Explain(args) => explain::explain(cli, args, out),
        Command::Cdi(command) => cdi::run(cli, command, out, remarks),
        Command::System(command) => system::run(cli, command, out),
        Command::Config(command) => config::run(cli, command, out, remarks),
        Command::Simulate(verb) => simulate::simulate(verb, out),
        Command::Gpus(args) => gpus::run(cli, args, out, remarks),
        Command::Doctor(args) => doctor::run(cli, args, out),
        Command::Configure(args) => configure::run(cli, args, out, remarks),
        Command::Node(command) => node::run(cli, command, out, remarks),
    }
}

/// Pretty JSON and a line end.
fn write_json(out: &mut dyn Write, value: &serde_json::Value) -> Result<(), CtlError> {
    writeln!(out, "{value:#}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    const SPEC: &str = "cdiVersion: 0.6.0\nkind: vendor.example/dev\ndevices:\n- name: x\n  containerEdits:\n    env: [A=1]\n";

    /// A host with one CDI spec.
    pub(crate) fn host() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/cdi")).unwrap();
        fs::create_dir_all(dir.path().join("etc/fleet-nvidia")).unwrap();
        fs::write(dir.path().join("etc/cdi/dev.yaml"), SPEC).unwrap();
        dir
    }

    /// Verdict, results and remarks.
    pub(crate) fn typed(root: &Path, args: &[&str]) -> (Result<Verdict, CtlError>, String, String) {
        let start = [
            "fleet-nvidia-ctl",
            "--root-dir",
            root.to_str().unwrap(),
            "--config",
            "/etc/fleet-nvidia/config.toml",
        ];
        let cli = Cli::try_parse_from(start.iter().chain(args)).unwrap();
        let (mut out, mut remarks) = (Vec::new(), Vec::new());
        let verdict = run(&cli, &mut out, &mut remarks);
        (
            verdict,
            String::from_utf8(out).unwrap(),
            String::from_utf8(remarks).unwrap(),
        )
    }

    fn configured(text: &str) -> tempfile::TempDir {
        let dir = host();
        fs::write(dir.path().join("etc/fleet-nvidia/config.toml"), text).unwrap();
        dir
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        assert_eq!(
            Cli::try_parse_from(["fleet-nvidia-ctl", "nonsense"])
                .unwrap_err()
                .exit_code(),
            2
        );
    }

    #[test]
    fn explain_prints_the_plan_as_text_and_json() {
        let host = configured("");
        let bundle = host.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        let spec = json!({"annotations": {"cdi.k8s.io/x": "vendor.example/dev=x"}});
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        let (verdict, out, _) = typed(host.path(), &["explain", bundle.to_str().unwrap()]);
        assert_eq!(verdict.unwrap(), Verdict::Fine);
        assert!(out.starts_with("env  A=1  "), "{out}");
        assert!(
            out.ends_with("dev.yaml vendor.example/dev=x  annotation cdi.k8s.io/x\n"),
            "{out}"
        );

        let file = bundle.join("config.json");
        let (_, out, _) = typed(host.path(), &["explain", "--json", file.to_str().unwrap()]);
        let plan: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(plan["schemaVersion"], 1);
        assert_eq!(plan["edits"].as_array().unwrap().len(), 1);
        let edit = &plan["edits"][0];
        assert_eq!(
            (&edit["change"], &edit["name"], &edit["value"]),
            (&json!("env"), &json!("A"), &json!("1"))
        );
        assert_eq!(
            edit["origin"]["source"],
            json!({"from": "annotation", "name": "cdi.k8s.io/x"})
        );
        assert_eq!(edit["origin"]["device"], "vendor.example/dev=x");
        assert_eq!(
            fs::read_to_string(file).unwrap(),
            spec.to_string(),
            "explain changes nothing"
        );
    }

    #[test]
    fn explain_fails_as_create_would() {
        let host = configured("");
        let file = host.path().join("config.json");
        fs::write(
            &file,
            json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=0"]}}).to_string(),
        )
        .unwrap();
        let (verdict, out, _) = typed(host.path(), &["explain", file.to_str().unwrap()]);
        let err = verdict.unwrap_err().to_string();
        assert!(
            err.starts_with("unresolvable CDI devices nvidia.com/gpu=0: "),
            "{err}"
        );
        assert_eq!(out, "");
        fs::write(&file, "{").unwrap();
        let (verdict, ..) = typed(host.path(), &["explain", file.to_str().unwrap()]);
        assert!(
            verdict
                .unwrap_err()
                .to_string()
                .starts_with(&format!("read {}: ", file.display()))
        );
    }

    #[test]
    fn devices_are_listed_and_bad_files_do_not_hide_them() {
        let host = configured("");
        fs::write(host.path().join("etc/cdi/bad.yaml"), "kind: x\n").unwrap();
        let (verdict, out, remarks) = typed(host.path(), &["cdi", "list"]);
        assert_eq!(verdict.unwrap(), Verdict::Fine);
        assert!(
            out.starts_with("vendor.example/dev=x  ") && out.ends_with("/etc/cdi/dev.yaml\n"),
            "{out}"
        );
        assert!(remarks.contains("bad.yaml"), "{remarks}");
        let (_, out, remarks) = typed(host.path(), &["cdi", "list", "--json"]);
        let list: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(list["schemaVersion"], 1);
        assert_eq!(list["devices"][0]["name"], "vendor.example/dev=x");
        assert_eq!(list["devices"][0]["edits"]["env"], 1);
        assert_eq!(list["errors"].as_array().unwrap().len(), 1);
        assert_eq!(remarks, "");
    }

    #[test]
    fn validation_finds_broken_files_and_conflicts() {
        let host = configured("");
        let (verdict, out, _) = typed(host.path(), &["cdi", "validate"]);
        assert_eq!(verdict.unwrap(), Verdict::Fine);
        assert!(out.ends_with("dev.yaml: valid, 1 devices, CDI 0.6.0\n  readers of CDI 0.5.0 refuse it: it declares 0.6.0, though 0.3.0 would do\n"), "{out}");

        fs::write(host.path().join("etc/cdi/twin.yaml"), SPEC).unwrap();
        let (verdict, out, _) = typed(host.path(), &["cdi", "validate", "--json"]);
        assert_eq!(verdict.unwrap(), Verdict::Faulty);
        let report: Value = serde_json::from_str(&out).unwrap();
        assert!(
            report["files"]
                .as_array()
                .unwrap()
                .iter()
                .all(|file| file["valid"] == false),
            "{out}"
        );

        let bad = host.path().join("bad.json");
        fs::write(&bad, "{}").unwrap();
        let (verdict, out, _) = typed(host.path(), &["cdi", "validate", bad.to_str().unwrap()]);
        assert_eq!(verdict.unwrap(), Verdict::Faulty);
        assert_eq!(out.lines().count(), 1, "{out}");
        let good = host.path().join("etc/cdi/dev.yaml");
        let (verdict, ..) = typed(host.path(), &["cdi", "validate", good.to_str().unwrap()]);
        assert_eq!(verdict.unwrap(), Verdict::Fine);
    }

    #[test]
    fn nvidias_configuration_is_shown_with_what_it_means_here() {
        let host = host();
        let dir = host.path().join("etc/nvidia-container-runtime");
        fs::create_dir_all(&dir).unwrap();
        let text =
            "disable-require = true\n[nvidia-container-cli]\nldconfig = \"@/sbin/ldconfig\"\n";
        fs::write(dir.join("config.toml"), text).unwrap();
        let root = host.path().to_str().unwrap();
        let cli = Cli::try_parse_from(["fleet-nvidia-ctl", "--root-dir", root, "config", "show"]);
        let mut out = Vec::new();
        run(&cli.unwrap(), &mut out, &mut Vec::new()).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.starts_with(
                "# from /etc/nvidia-container-runtime/config.toml, NVIDIA's own: there is no "
            ),
            "{out}"
        );
        assert!(
            out.contains("\n# without effect here: nvidia-container-cli.ldconfig\n"),
            "{out}"
        );
        assert!(out.contains("\ndisable-require = true\n"), "{out}");
    }

    #[test]
    fn the_configuration_is_shown_as_it_counts() {
        let host = configured("profile = \"crio\"\nfuture = 1\n");
        let (_, out, remarks) = typed(host.path(), &["config", "show"]);
        assert!(
            out.starts_with("# from /etc/fleet-nvidia/config.toml\nprofile = \"crio\"\n"),
            "{out}"
        );
        assert!(
            fleet_inject::Policy::parse(&out, "shown")
                .unwrap()
                .warnings
                .is_empty()
        );
        assert!(remarks.contains("`future` is not known"), "{remarks}");
        let (_, out, _) = typed(host.path(), &["config", "path"]);
        assert_eq!(out, "/etc/fleet-nvidia/config.toml\n");
        let (_, out, _) = typed(host.path(), &["config", "default"]);
        assert_eq!(out, fleet_inject::DEFAULT_CONFIG);
    }
}
