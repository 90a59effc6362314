//! Machines with a name, as the descriptions that a user could write.

use crate::mig::Profile;
use crate::model::{MODELS, Model, model};

/// Names besides `MODELxN` and `MODELxN-mig`, with their descriptions.
const NAMED: [(&str, &str); 12] = [
    (
        "dgx-a100",
        "drm = true\nnvswitches = 6\npersistenced = true\nfabricmanager = true\n[[gpu]]\nmodel = \"a100-80gb\"\ncount = 8\n",
    ),
    (
        "dgx-h100",
        "drm = true\nnvswitches = 4\npersistenced = true\nfabricmanager = true\n[[gpu]]\nmodel = \"h100\"\ncount = 8\n",
    ),
    (
        "dgx-station",
        "drm = true\npersistenced = true\n[[gpu]]\nmodel = \"a100-80gb\"\ncount = 3\n[[gpu]]\nmodel = \"dgx-display\"\n[[gpu]]\nmodel = \"a100-80gb\"\n",
    ),
    (
        "grace-hopper",
        "drm = true\nimex-channels = 1\npersistenced = true\n[[gpu]]\nmodel = \"gh200\"\nbus-id = \"0009:01:00.0\"\n",
    ),
    (
        "imex",
        "imex-channels = 4\n[[gpu]]\nmodel = \"b200\"\ncount = 4\n",
    ),
    (
        "mig-mixed",
        "drm = true\n[[gpu]]\nmodel = \"a100\"\nmig = [\"3g.20gb\", \"2g.10gb\", \"1g.5gb\"]\n[[gpu]]\nmodel = \"a100\"\n[[gpu]]\nmodel = \"h100\"\nmig = [\"4g.40gb/2c,2c\", \"1g.20gb\"]\n[[gpu]]\nmodel = \"h100\"\nmig = []\n",
    ),
    (
        "workstation",
        "drm = true\n[[gpu]]\nmodel = \"rtx4090\"\n[[gpu]]\nmodel = \"rtx6000\"\n",
    ),
    (
        "lost-gpu",
        "[[gpu]]\nmodel = \"h100\"\n[[gpu]]\nmodel = \"h100\"\nfault = \"lost\"\n[[gpu]]\nmodel = \"h100\"\n",
    ),
    (
        "bad-nodes",
        "[[gpu]]\nmodel = \"h100\"\n[[gpu]]\nmodel = \"h100\"\nfault = \"missing-node\"\n[[gpu]]\nmodel = \"h100\"\nfault = \"dead-node\"\n[[gpu]]\nmodel = \"h100\"\nfault = \"unreadable-node\"\n[[gpu]]\nmodel = \"h100\"\nfault = \"garbled-proc\"\n",
    ),
    (
        "mismatch",
        "module = \"550.90.07\"\n[[gpu]]\nmodel = \"h100\"\n",
    ),
    ("wsl", "platform = \"wsl\"\n[[gpu]]\nmodel = \"rtx4090\"\n"),
    ("orin", "platform = \"tegra\"\n[[gpu]]\nmodel = \"orin\"\n"),
];

/// The description of a built-in machine.
pub(crate) fn text(name: &str) -> Option<String> {
    let named = NAMED.iter().find(|(known, _)| *known == name);
    named.map_or_else(|| counted(name), |(_, text)| Some((*text).to_owned()))
}

/// `h100x8`, `a100x2-mig`.
fn counted(name: &str) -> Option<String> {
    let (name, mig) = name
        .strip_suffix("-mig")
        .map_or((name, false), |name| (name, true));
    let (key, count) = name.rsplit_once('x')?;
    let model = model(key).filter(|model| model.pci_id != 0)?;
    let count: u32 = count.parse().ok().filter(|n| (1..=16).contains(n))?;
    let mig = if mig {
        format!("mig = {:?}\n", usual(model)?)
    } else {
        String::new()
    };
    Some(format!(
        "[[gpu]]\nmodel = \"{key}\"\ncount = {count}\n{mig}"
    ))
}

/// Half, quarter and eighth of a GPU.
fn usual(model: &Model) -> Option<Vec<&'static str>> {
    let profiles = Profile::all(model.mig?);
    Some([3, 2, 0].map(|n: usize| profiles[n].name).to_vec())
}

/// What `text` knows, for people to choose from.
#[must_use]
pub fn names() -> Vec<(String, String)> {
    let counted = MODELS
        .iter()
        .filter(|model| model.pci_id != 0)
        .map(|model| {
            let mig = if model.mig.is_some() { "[-mig]" } else { "" };
            (
                format!("{}xN{mig}", model.key),
                format!("1 to 16 times {}", model.name),
            )
        });
    let named = NAMED.iter().map(|(name, text)| {
        let line = text.lines().filter(|line| *line != "[[gpu]]");
        let line: Vec<&str> = line
            .map(|line| line.trim_start_matches("model = "))
            .collect();
        ((*name).to_owned(), line.join(", "))
    });
    counted.chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn every_name_is_a_machine() {
        for (name, _) in NAMED {
            Machine::load(name, None).unwrap();
        }
        for model in MODELS.iter().filter(|model| model.pci_id != 0) {
            for suffix in ["x1", "x8", "x16", "x2-mig"] {
                let name = format!("{}{suffix}", model.key);
                let machine = Machine::preset(&name);
                assert_eq!(
                    machine.is_some(),
                    model.mig.is_some() || !suffix.ends_with("mig"),
                    "{name}"
                );
            }
        }
        assert_eq!(names().len(), 12 + 11);
    }

    #[test]
    fn other_names_are_none() {
        for bad in [
            "h100x0",
            "h100x17",
            "h100",
            "voodoox2",
            "h100x-1",
            "orinx1",
            "l40sx1-mig",
        ] {
            assert!(Machine::preset(bad).is_none(), "{bad}");
        }
        let err = Machine::load("/no/such/machine", None)
            .unwrap_err()
            .to_string();
        assert!(err.contains("hint: a description file"), "{err}");
    }
}
