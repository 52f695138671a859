//! The figures as an SVG: for each case a row of panels, in each a bar for each contestant, with the smallest and the largest round as a line.

use crate::bench::Outcome;
use crate::contestant::Kind;
use crate::report::{Figure, number};
use std::fmt::Write as _;

const PANEL: f64 = 330.0;
const LABELS: f64 = 210.0;
const BAR: f64 = 16.0;
const GAP: f64 = 8.0;
/// Room for the number behind the longest bar.
const NUMBER: f64 = 90.0;
const HEAD: f64 = 56.0;

/// Draws all cases.
pub fn svg(outcomes: &[Outcome]) -> String {
    let mut body = String::new();
    let (mut y, mut width) = (0.0, 0.0_f64);
    for outcome in outcomes {
        let figures: Vec<&Figure> = outcome.figures().filter(|figure| figure.drawn).collect();
        put(&mut body, format_args!(r#"<text x="10" y="{}" class="title">{}</text>"#, y + 22.0, escape(&outcome.title())));
        for (row, contestant) in outcome.case.contestants.iter().enumerate() {
            put(&mut body, format_args!(r#"<text x="10" y="{}">{}</text>"#, line_of(y, row) + 12.0, escape(contestant.name)));
        }
        for (column, figure) in figures.iter().enumerate() {
            panel(&mut body, outcome, figure, LABELS + column as f64 * PANEL, y);
        }
        width = width.max(LABELS + figures.len() as f64 * PANEL);
        y = line_of(y, outcome.case.contestants.len()) + 24.0;
    }
    let style = "text{font:12px sans-serif;fill:#222}.title{font:bold 14px sans-serif}.es{fill:#2b7a4b}.streams{fill:#b8860b}.bare{fill:#8a8f98}line{stroke:#222}";
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}">
<style>{style}</style>
<rect width="100%" height="100%" fill="#fff"/>
{body}</svg>
"##
    )
}

fn panel(body: &mut String, outcome: &Outcome, figure: &Figure, x: f64, y: f64) {
    put(body, format_args!(r#"<text x="{x}" y="{}">{}</text>"#, y + 44.0, escape(figure.title)));
    let spreads: Vec<_> = outcome.results.iter().map(|results| results.spread(figure.name)).collect();
    let most = spreads.iter().flatten().map(|spread| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let length = |value: f64| (PANEL - NUMBER) * value / most;
    for (row, spread) in spreads.iter().enumerate() {
        let Some(spread) = spread else { continue };
        let (top, class) = (line_of(y, row), class(outcome.case.contestants[row].kind));
        put(body, format_args!(r#"<rect x="{x}" y="{top}" width="{:.1}" height="{BAR}" class="{class}"/>"#, length(spread.median)));
        let middle = top + BAR / 2.0;
        let (from, to) = (x + length(spread.min), x + length(spread.max));
        put(body, format_args!(r#"<line x1="{from:.1}" x2="{to:.1}" y1="{middle}" y2="{middle}"/>"#));
        put(body, format_args!(r#"<text x="{:.1}" y="{}">{}</text>"#, to + 6.0, top + 12.0, number(spread.median, figure.digits)));
    }
}

fn line_of(y: f64, row: usize) -> f64 {
    y + HEAD + row as f64 * (BAR + GAP)
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Es => "es",
        Kind::Streams => "streams",
        Kind::Bare => "bare",
    }
}

fn put(body: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(body, "{element}").expect("a string takes all");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_has_a_bar_for_every_drawn_figure() {
        let outcome = crate::report::tests::outcome();
        let svg = svg(std::slice::from_ref(&outcome));
        assert_eq!((svg.matches(r#"class="es""#).count(), svg.matches(r#"class="streams""#).count()), (2, 2), "{svg}");
        assert!(svg.contains("Kafka &lt;Streams&gt;") && !svg.contains("<Streams>"), "{svg}");
        // The longest round reaches the end of the panel, the median of the same contestant 5/6 of it.
        assert!(svg.contains(r#"width="200.0""#) && svg.contains(r#"x2="450.0""#), "{svg}");
    }
}
