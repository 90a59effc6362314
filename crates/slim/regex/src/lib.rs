//! Stands in for `regex`, which libcontainer and oci-spec ask for: half a MB of automata and tables of Unicode, for three
//! fields of a spec (`execCPUAffinity`, and the schemata of `linux.intelRdt`, which this runtime sets itself) and
//! `--regex`. Here they get the small engine of the same authors: the same syntax, without Unicode in `\w`, `\d` and `\s`,
//! and time that grows with the square of the text, which is a container id or shorter than a page.

pub use regex_lite::*;

#[cfg(test)]
mod tests {
    use super::*;

    /// What oci-spec 0.10 and libcontainer 0.7 compile: one that this engine does not know would be their panic.
    #[test]
    fn expressions_of_the_libraries() {
        let affinity = Regex::new(r"^(\d+(-\d+)?)(,\d+(-\d+)?)*$").unwrap();
        assert!(affinity.is_match("0-3,7") && !affinity.is_match("0-,7") && !affinity.is_match(""));
        let mask = r"(?:\s|;)*(?:\w+\s*=\s*[[:xdigit:]]+)?(?:(?:\s*;+\s*)+\w+\s*=\s*[[:xdigit:]]+)*(?:\s|;)*$";
        let cache = Regex::new(&format!("^(?:L3|L3DATA|L3CODE):{mask}")).unwrap();
        assert!(cache.is_match("L3:0=ffff;1=f0") && !cache.is_match("L3:0=xyz"));
        assert!(Regex::new(&format!("^[A-Za-z0-9]+:{mask}")).is_ok());
        let bandwidth =
            Regex::new(r"^MB:(?:\s|;)*(?:\w+\s*=\s*\w+)?(?:(?:\s*;+\s*)+\w+\s*=\s*\w+)*(?:\s|;)*$")
                .unwrap();
        assert!(bandwidth.is_match("MB:0=20;1=70") && !bandwidth.is_match("L3:0=1"));
        let token = Regex::new(r"(\w+)\s*=\s*0*([[:xdigit:]]+)").unwrap();
        let found: Vec<&str> = token
            .captures_iter("L3:0=00ff;1=f0")
            .map(|token| token.get(2).unwrap().as_str())
            .collect();
        assert_eq!(found, ["ff", "f0"]);
    }
}
