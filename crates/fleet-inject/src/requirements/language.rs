//! The language of demands: alternatives are separated by spaces, and what an alternative needs together by commas.
//! `cuda>=12.4 brand=tesla,driver>=535,driver<536`.

use std::fmt;

use super::driver::Properties;
use crate::request::shown;

/// `MAJOR[.MINOR[.PATCH]]`, each of 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version([u32; 3]);

impl Version {
    pub(super) const fn new(major: u32, minor: u32) -> Self {
        Self([major, minor, 0])
    }

    /// A `v` may stand before it. Numbers may have leading zeros, as those of drivers do.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let mut version = Self::default();
        for (at, slot) in version.0.iter_mut().enumerate() {
            match parts.next() {
                Some(part) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                    *slot = part.parse().ok()?;
                }
                None if at > 0 => {}
                _ => return None,
            }
        }
        parts.next().is_none().then_some(version)
    }

    pub(super) fn major(self) -> u32 {
        self.0[0]
    }

    /// Without what stands behind the second number.
    pub(super) fn minor(self) -> String {
        format!("{}.{}", self.0[0], self.0[1])
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [major, minor, 0] => write!(f, "{major}.{minor}"),
            [major, minor, patch] => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

/// A property that may be known by its lower bound alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) version: Version,
    /// The version is this one or a later one.
    pub(super) at_least: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// Longer ones first.
const OPERATORS: [(&str, Operator); 6] = [
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessEqual),
    (">=", Operator::GreaterEqual),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

impl Operator {
    fn holds<T: PartialOrd>(self, host: &T, wanted: &T) -> bool {
        match self {
            Self::Equal => host == wanted,
            Self::NotEqual => host != wanted,
            Self::Less => host < wanted,
            Self::LessEqual => host <= wanted,
            Self::Greater => host > wanted,
            Self::GreaterEqual => host >= wanted,
        }
    }

    /// What cannot be told counts in favour of the container.
    fn may_hold(self, host: Known, wanted: Version) -> bool {
        if !host.at_least {
            return self.holds(&host.version, &wanted);
        }
        match self {
            Self::Less => host.version < wanted,
            Self::LessEqual | Self::Equal => host.version <= wanted,
            Self::NotEqual | Self::Greater | Self::GreaterEqual => true,
        }
    }
}

/// Whether the host meets a demand. A factor about a property that is not known is passed over, and so is an
/// alternative of such factors only; a demand without any other alternative is met.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn is_met(demand: &str, host: &Properties) -> Result<bool, String> {
    let (mut some, mut met) = (false, false);
    for alternative in demand.split_whitespace() {
        let mut verdict = None;
        for factor in alternative.split(',').filter(|factor| !factor.is_empty()) {
            if let Some(holds) = holds(factor, host)? {
                verdict = Some(verdict.unwrap_or(true) && holds);
            }
        }
        some |= verdict.is_some();
        met |= verdict == Some(true);
    }
    Ok(met || !some)
}

/// `None` for a property that is not known.
fn holds(factor: &str, host: &Properties) -> Result<Option<bool>, String> {
    let (property, operator, value) = split(factor)?;
    let version = || {
        Version::parse(value).ok_or_else(|| format!("{} does not end in a version", shown(factor)))
    };
    let compare = |known: Option<Known>| -> Result<Option<bool>, String> {
        let wanted = version()?;
        Ok(known.map(|known| operator.may_hold(known, wanted)))
    };
    match property {
        "cuda" => compare(host.cuda),
        "driver" => compare(host.driver),
        "arch" => compare(host.arch),
        "brand" => match operator {
            Operator::Equal | Operator::NotEqual => {
                let is_brand = |brand: &String| operator.holds(&brand.as_str(), &value);
                Ok(host.brand.as_ref().map(is_brand))
            }
            _ => Err(format!("{}: a brand has no order", shown(factor))),
        },
        _ => Ok(None),
    }
}

fn split(factor: &str) -> Result<(&str, Operator, &str), String> {
    let missing = || format!("{} has no operator of = != < <= > >=", shown(factor));
    let at = factor.find(['=', '!', '<', '>']).ok_or_else(missing)?;
    let (property, rest) = factor.split_at(at);
    let known = OPERATORS
        .iter()
        .find_map(|(text, operator)| Some((*operator, rest.strip_prefix(text)?)));
    let (operator, value) = known.ok_or_else(missing)?;
    Ok((property.trim(), operator, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Properties {
        let exact = |major, minor| {
            Some(Known {
                version: Version::new(major, minor),
                at_least: false,
            })
        };
        Properties {
            driver: exact(550, 54),
            cuda: exact(12, 4),
            arch: exact(9, 0),
            brand: Some("tesla".to_owned()),
        }
    }

    #[test]
    fn versions() {
        let cases = [
            ("12", Some([12, 0, 0])),
            ("12.4", Some([12, 4, 0])),
            ("v12.4.1", Some([12, 4, 1])),
            ("470.57.02", Some([470, 57, 2])),
            ("4294967295", Some([u32::MAX, 0, 0])),
            ("4294967296", None),
            ("1.2.3.4", None),
            ("", None),
            ("v", None),
            ("12.", None),
            (".4", None),
            ("12.x", None),
            ("+1", None),
            (" 12", None),
        ];
        for (text, want) in cases {
            assert_eq!(Version::parse(text), want.map(Version), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let cases = [
            ("cuda>=12.4", true),
            ("cuda>12.4", false),
            ("cuda>=12.10", false),
            ("cuda<12.10", true),
            ("cuda<=12.4", true),
            ("cuda=12.4", true),
            ("cuda=12", false),
            ("cuda!=12", true),
            ("cuda != 12", true),
            ("driver>=550.54", true),
            ("driver<550", false),
            ("arch>=8.0", true),
            ("arch>=10.0", false),
            ("brand=tesla", true),
            ("brand!=tesla", false),
        ];
        for (demand, want) in cases {
            let demand = demand.replace(' ', "");
            assert_eq!(is_met(&demand, &host()), Ok(want), "{demand}");
        }
    }

    #[test]
    fn commas_bind_tighter_than_spaces() {
        let cases = [
            ("cuda>=13 cuda>=12", true),
            ("cuda>=12,driver>=999", false),
            (
                "cuda>=13,driver>=500 brand=tesla,driver>=550,driver<551",
                true,
            ),
            ("cuda>=13 brand=tesla,driver>=470,driver<471", false),
            ("  cuda>=13   cuda>=12  ", true),
            ("cuda>=12,,", true),
            ("", true),
        ];
        for (demand, want) in cases {
            assert_eq!(is_met(demand, &host()), Ok(want), "{demand}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let unknown = Properties {
            brand: None,
            arch: None,
            ..host()
        };
        let cases = [
            ("brand=geforce", true),
            ("brand=geforce,cuda>=13", false),
            ("brand=geforce cuda>=13", false),
            ("brand=geforce,driver>=550 cuda>=13", true),
            ("colour=green", true),
            ("colour=green,cuda>=13", false),
            ("arch>=99", true),
        ];
        for (demand, want) in cases {
            assert_eq!(is_met(demand, &unknown), Ok(want), "{demand}");
        }
    }

    #[test]
    fn a_driver_newer_than_its_table_has_the_benefit_of_the_doubt() {
        let newer = Properties {
            cuda: Some(Known {
                version: Version::new(13, 1),
                at_least: true,
            }),
            ..Properties::default()
        };
        let cases = [
            ("cuda>=12.4", true),
            ("cuda>=14", true),
            ("cuda>13.1", true),
            ("cuda<13", false),
            ("cuda<=13.0", false),
            ("cuda<14", true),
            ("cuda=12.4", false),
            ("cuda=13.4", true),
            ("cuda!=13.4", true),
        ];
        for (demand, want) in cases {
            assert_eq!(is_met(demand, &newer), Ok(want), "{demand}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for (demand, word) in [
            ("cuda", "no operator"),
            ("cuda!12", "no operator"),
            ("cuda>=", "version"),
            ("cuda>=x", "version"),
            ("arch>=1.2.3.4", "version"),
            ("cuda>=12 driver==5", "version"),
            ("brand>tesla", "order"),
        ] {
            let err = is_met(demand, &host()).unwrap_err();
            assert!(err.contains(word), "{demand}: {err}");
        }
    }

    /// Whatever stands there, the answer is a verdict or one short line.
    #[test]
    fn random_texts_do_not_break_it() {
        let pieces = [
            "cuda",
            "driver",
            "brand",
            "arch",
            ">=",
            "<",
            "=",
            "!",
            ",",
            " ",
            "12.4",
            "v",
            ".",
            "é",
            "\u{0}",
            "4294967296",
        ];
        let mut seed: u64 = 7;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..8 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[usize::try_from(seed >> 33).unwrap() % pieces.len()]);
            }
            if let Err(why) = is_met(&text, &host()) {
                assert!(why.len() < 300 && !why.contains('\u{0}'), "{why}");
            }
        }
    }
}
