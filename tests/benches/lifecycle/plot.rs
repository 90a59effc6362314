//! Pictures of the figures: bars for calls, lines for crowds. Colours suit light and dark pages.

use std::fmt::Write as _;

/// One colour for each runtime, in the order of the columns.
const COLOURS: [&str; 4] = ["#2f81f7", "#d29922", "#8b949e", "#3fb950"];

const STYLE: &str = "text{font:12px sans-serif;fill:#1f2328}.t{font-weight:bold;font-size:14px}\
.a{stroke:#8b949e;stroke-width:1}.g{stroke:#8b949e;stroke-opacity:.3}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}}";

/// Groups of bars.
pub(crate) fn bars(
    title: &str,
    unit: &str,
    names: &[&str],
    groups: &[(String, Vec<Option<f64>>)],
) -> String {
    let (left, width, bar) = (230.0, 460.0, 15.0);
    let most = groups
        .iter()
        .flat_map(|(_, all)| all.iter().flatten())
        .copied()
        .fold(1.0, f64::max);
    let mut body = String::new();
    let mut y = 62.0;
    for (name, values) in groups {
        let there = values.iter().flatten().count();
        #[allow(clippy::cast_precision_loss)]
        let middle = y + there as f64 * bar / 2.0 + 4.0;
        let _ = write!(
            body,
            r#"<text x="{}" y="{middle}" text-anchor="end">{}</text>"#,
            left - 8.0,
            escaped(name)
        );
        for (value, colour) in values.iter().zip(COLOURS) {
            let Some(value) = value else { continue };
            let long = value / most * width;
            let _ = write!(
                body,
                r#"<rect x="{left}" y="{y}" width="{long:.1}" height="{}" fill="{colour}"/><text x="{:.1}" y="{}">{value:.1}</text>"#,
                bar - 2.0,
                left + long + 5.0,
                y + 11.0
            );
            y += bar;
        }
        y += 12.0;
    }
    let _ = write!(
        body,
        r#"<line class="a" x1="{left}" y1="56" x2="{left}" y2="{}"/>"#,
        y - 6.0
    );
    let title = format!("{title}, {unit}");
    page(760.0, y + 6.0, &(heading(&title, names, 20.0) + &body))
}

/// One chart beside the other, each with a line for each runtime.
pub(crate) struct Lines<'a> {
    pub(crate) title: &'a str,
    /// Points of each runtime: how many, and the figure.
    pub(crate) series: Vec<Vec<(f64, f64)>>,
}

/// Charts in a row.
pub(crate) fn lines(names: &[&str], charts: &[Lines<'_>]) -> String {
    let (width, high, top) = (320.0, 200.0, 78.0);
    let mut body = heading("Many containers at once", names, 20.0);
    let mut left = 50.0;
    for chart in charts {
        let points = || chart.series.iter().flatten();
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.001, f64::max);
        let (far, tall) = (most(|point| point.0), most(|point| point.1));
        let at = |point: &(f64, f64)| {
            (
                left + point.0 / far * width,
                top + high - point.1 / tall * high,
            )
        };
        let _ = write!(
            body,
            r#"<text x="{left}" y="{}">{}</text>"#,
            top - 10.0,
            escaped(chart.title)
        );
        for part in 0..=4 {
            let share = f64::from(part) / 4.0;
            let y = top + high - share * high;
            let _ = write!(
                body,
                r#"<line class="g" x1="{left}" y1="{y}" x2="{}" y2="{y}"/><text x="{}" y="{}" text-anchor="end">{:.1}</text>"#,
                left + width,
                left - 6.0,
                y + 4.0,
                share * tall
            );
        }
        for (series, colour) in chart.series.iter().zip(COLOURS) {
            let path: Vec<String> = series
                .iter()
                .map(|point| format!("{:.1},{:.1}", at(point).0, at(point).1))
                .collect();
            let _ = write!(
                body,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                path.join(" ")
            );
            for point in series {
                let (x, y) = at(point);
                let _ = write!(
                    body,
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#
                );
            }
        }
        for (x, _) in chart.series.first().into_iter().flatten() {
            let place = at(&(*x, 0.0)).0;
            let _ = write!(
                body,
                r#"<text x="{place:.1}" y="{}" text-anchor="middle">{x}</text>"#,
                top + high + 16.0
            );
        }
        left += width + 60.0;
    }
    page(left, top + high + 30.0, &body)
}

fn heading(title: &str, names: &[&str], y: f64) -> String {
    let mut text = format!(
        r#"<text class="t" x="10" y="{y}">{}</text>"#,
        escaped(title)
    );
    let mut x = 10.0;
    for (name, colour) in names.iter().zip(COLOURS) {
        let _ = write!(
            text,
            r#"<rect x="{x}" y="{}" width="12" height="12" fill="{colour}"/><text x="{}" y="{}">{name}</text>"#,
            y + 12.0,
            x + 17.0,
            y + 22.0
        );
        #[allow(clippy::cast_precision_loss)]
        let long = name.len() as f64;
        x += 40.0 + 7.0 * long;
    }
    text
}

fn page(width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\"><style>{STYLE}</style>{body}</svg>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
