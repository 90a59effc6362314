//! Rows of figures, one column for each runtime.

use std::fmt::Write as _;

/// Median and least.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
}

impl Figure {
    pub(crate) fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(0.0);
        Self {
            median: at(all.len() / 2),
            least: at(0),
        }
    }
}

/// One thing that was measured. A runtime that does not do it has no figure.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) wall: Vec<Option<Figure>>,
    pub(crate) cpu: Vec<Option<Figure>>,
}

/// A Markdown table: what, then one column for each heading.
pub(crate) fn table(headings: &[&str], rows: &[(String, Vec<String>)]) -> String {
    let mut text = format!(
        "| | {} |\n|---|{}\n",
        headings.join(" | "),
        "---|".repeat(headings.len())
    );
    for (name, cells) in rows {
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text
}

/// Times in milliseconds with the ratios of the first runtime to the others.
pub(crate) fn timed(
    names: &[&str],
    rows: &[Row],
    which: impl Fn(&Row) -> &Vec<Option<Figure>>,
) -> String {
    let mut headings = names.to_vec();
    headings.push("ratios by medians");
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (row.name.clone(), cells(names, which(row))))
        .collect();
    table(&headings, &rows)
}

fn cells(names: &[&str], figures: &[Option<Figure>]) -> Vec<String> {
    let shown = |figure: &Option<Figure>| match figure {
        Some(figure) => format!("{:.1} ({:.1})", figure.median, figure.least),
        None => "–".to_owned(),
    };
    let mut cells: Vec<String> = figures.iter().map(shown).collect();
    let ours = figures.first().copied().flatten();
    let peers = names.iter().zip(figures).skip(1);
    let ratios = peers.filter_map(|(name, peer)| {
        let (ours, peer) = (ours?, (*peer)?);
        Some(format!("{:.2} × {name}", ours.median / peer.median))
    });
    cells.push(ratios.collect::<Vec<_>>().join(", "));
    cells
}
