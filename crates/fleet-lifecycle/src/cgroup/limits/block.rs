//! Block I/O limits.

use super::section::Section;
use super::{Result, Target};

/// Key in the spec, file on v1, word of `io.max` on v2.
const THROTTLES: [(&str, &str, &str); 4] = [
    (
        "throttleReadBpsDevice",
        "blkio.throttle.read_bps_device",
        "rbps",
    ),
    (
        "throttleWriteBpsDevice",
        "blkio.throttle.write_bps_device",
        "wbps",
    ),
    (
        "throttleReadIOPSDevice",
        "blkio.throttle.read_iops_device",
        "riops",
    ),
    (
        "throttleWriteIOPSDevice",
        "blkio.throttle.write_iops_device",
        "wiops",
    ),
];

pub(super) fn apply(target: &Target<'_>, block: &Section<'_>) -> Result<()> {
    if target.is_v2() {
        weights_v2(target, block)?;
    } else {
        weights_v1(target, block)?;
    }
    for (key, file, word) in THROTTLES {
        for entry in block.list(key)? {
            let device = device(&entry)?;
            let rate = entry.unsigned("rate")?;
            let rate = rate.ok_or_else(|| entry.refused("an entry has no rate"))?;
            match (target.is_v2(), rate) {
                (false, rate) => target.write("blkio", file, &format!("{device} {rate}"))?,
                // 0 takes a throttle away on v1; v2 has a word for that.
                (true, 0) => target.write("io", "io.max", &format!("{device} {word}=max"))?,
                (true, rate) => target.write("io", "io.max", &format!("{device} {word}={rate}"))?,
            }
        }
    }
    Ok(())
}

/// `config-linux.md#block-io`: from 10 to 1000; 0 is "not set".
fn weight(section: &Section<'_>, key: &str) -> Result<Option<u64>> {
    match section.unsigned(key)?.filter(|n| *n != 0) {
        Some(n) if !(10..=1000).contains(&n) => {
            Err(section.refused(&format!("`{key}` {n} is not between 10 and 1000")))
        }
        other => Ok(other),
    }
}

fn device(entry: &Section<'_>) -> Result<String> {
    match (entry.unsigned("major")?, entry.unsigned("minor")?) {
        (Some(major), Some(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(entry.refused("an entry has no device numbers")),
    }
}

fn weights_v1(target: &Target<'_>, block: &Section<'_>) -> Result<()> {
    // With the BFQ scheduler the files have its name.
    let named = |plain: &'static str, bfq: &'static str| {
        if target.has("blkio", plain) {
            plain
        } else {
            bfq
        }
    };
    if let Some(weight) = weight(block, "weight")? {
        target.write(
            "blkio",
            named("blkio.weight", "blkio.bfq.weight"),
            &weight.to_string(),
        )?;
    }
    if let Some(weight) = weight(block, "leafWeight")? {
        target.write("blkio", "blkio.leaf_weight", &weight.to_string())?;
    }
    for entry in block.list("weightDevice")? {
        let device = device(&entry)?;
        if let Some(weight) = weight(&entry, "weight")? {
            let file = named("blkio.weight_device", "blkio.bfq.weight_device");
            target.write("blkio", file, &format!("{device} {weight}"))?;
        }
        if let Some(weight) = weight(&entry, "leafWeight")? {
            target.write(
                "blkio",
                "blkio.leaf_weight_device",
                &format!("{device} {weight}"),
            )?;
        }
    }
    Ok(())
}

fn weights_v2(target: &Target<'_>, block: &Section<'_>) -> Result<()> {
    let bfq = target.has("io", "io.bfq.weight");
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    // 10 to 1000 onto 1 to 10000, as runc and crun; BFQ takes the number as it is.
    let scaled = |n: u64| if bfq { n } else { 1 + (n - 10) * 9999 / 990 };
    let leaf = |section: &Section<'_>| match weight(section, "leafWeight")? {
        Some(_) => Err(section.refused("`leafWeight` needs cgroup v1; this machine has v2")),
        None => Ok(()),
    };
    leaf(block)?;
    if let Some(weight) = weight(block, "weight")? {
        target.write("io", file, &scaled(weight).to_string())?;
    }
    for entry in block.list("weightDevice")? {
        leaf(&entry)?;
        if let Some(weight) = weight(&entry, "weight")? {
            target.write(
                "io",
                file,
                &format!("{} {}", device(&entry)?, scaled(weight)),
            )?;
        }
    }
    Ok(())
}
