//! HTML report of a run: stats, charts, tables, texts. It has no script and no external resource, so it can be mailed
//! and opened anywhere, in a light or dark theme.

mod chart;

use std::fmt::Write as _;

pub(crate) use chart::{Chart, Mark, Series};

/// Page, from top to bottom.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// Heading.
    pub(crate) title: String,
    /// Introduction below the heading.
    pub(crate) lead: String,
    /// Key numbers.
    pub(crate) stats: Vec<Stat>,
    /// Sections.
    pub(crate) sections: Vec<Section>,
}

/// Labeled number.
#[derive(Debug, Clone)]
pub(crate) struct Stat {
    /// Label.
    pub(crate) label: &'static str,
    /// Number with its unit.
    pub(crate) value: String,
}

/// Section of the page.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    /// Heading.
    pub(crate) title: String,
    /// Sentence below the heading; may be empty.
    pub(crate) note: String,
    /// Content.
    pub(crate) content: Content,
}

/// Content of a section.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Line chart.
    Chart(Chart),
    /// Horizontal bars on a common scale.
    Bars(Vec<Bar>),
    /// Table. The first column is text, the others are numbers.
    Table { header: Vec<&'static str>, rows: Vec<Vec<String>> },
    /// Generated texts with their prompts.
    Samples(Vec<Sample>),
    /// Verbatim text.
    Listing(String),
}

/// Horizontal bar, with an optional mark to compare it with.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bar {
    /// Label.
    pub(crate) label: String,
    /// Length. The bars of a section share a scale.
    pub(crate) amount: f64,
    /// Text of the amount.
    pub(crate) value_text: String,
    /// Position of the mark on the same scale.
    pub(crate) mark: Option<f64>,
}

/// Generated text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Sample {
    /// Prompt.
    pub(crate) prompt: String,
    /// Continuation.
    pub(crate) text: String,
}

impl Report {
    /// Renders the page.
    pub(crate) fn to_html(&self) -> String {
        let mut page = String::with_capacity(64 << 10);
        let title = escape(&self.title);
        page += "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
        page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
        page += &format!("<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n");
        page += &format!("<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n", escape(&self.lead));
        page += &stats(&self.stats);
        for section in &self.sections {
            page += &section.to_html();
        }
        page += "</main>\n</body>\n</html>\n";
        page
    }
}

impl Section {
    fn to_html(&self) -> String {
        let mut html = format!("<section>\n<h2>{}</h2>\n", escape(&self.title));
        if !self.note.is_empty() {
            html += &format!("<p class=\"note\">{}</p>\n", escape(&self.note));
        }
        html += &match &self.content {
            Content::Chart(chart) => chart.to_html(),
            Content::Bars(list) => bars(list),
            Content::Table { header, rows } => table(header, rows),
            Content::Samples(samples) => samples.iter().map(sample).collect(),
            Content::Listing(text) => format!("<pre class=\"listing\">{}</pre>\n", escape(text)),
        };
        html + "</section>\n"
    }
}

fn stats(stats: &[Stat]) -> String {
    let mut html = String::from("<dl class=\"figures\">\n");
    for stat in stats {
        let (label, value) = (escape(stat.label), escape(&stat.value));
        let _ = writeln!(html, "<div><dt>{label}</dt><dd>{value}</dd></div>");
    }
    html + "</dl>\n"
}

fn bars(bars: &[Bar]) -> String {
    let scale = bars.iter().map(|bar| bar.amount.max(bar.mark.unwrap_or(0.0))).fold(0.0, f64::max);
    let percent = |amount: f64| if scale > 0.0 { 100.0 * (amount / scale).clamp(0.0, 1.0) } else { 0.0 };
    let mut html = String::from("<div class=\"bars\">\n");
    for bar in bars {
        let mark = bar.mark.map(|mark| format!("<i style=\"left:{:.2}%\"></i>", percent(mark)));
        let _ = writeln!(
            html,
            "<span>{}</span><span class=\"track\"><b style=\"width:{:.2}%\"></b>{}</span><span>{}</span>",
            escape(&bar.label),
            percent(bar.amount),
            mark.unwrap_or_default(),
            escape(&bar.value_text),
        );
    }
    html + "</div>\n"
}

fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let row = |cell: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells: String = cells.map(|text| format!("<{cell}>{text}</{cell}>")).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let head = row("th", &mut header.iter().map(|text| escape(text)));
    let body: String =
        rows.iter().map(|cells| row("td", &mut cells.iter().map(|text| escape(text)))).collect();
    format!("<div class=\"scroll\"><table>\n<thead>{head}</thead>\n<tbody>{body}</tbody>\n</table></div>\n")
}

fn sample(sample: &Sample) -> String {
    format!("<pre class=\"sample\"><b>{}</b>{}</pre>\n", escape(&sample.prompt), escape(&sample.text))
}

/// HTML-escaped text. Control characters become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --line: #d9dee3; --page: #ffffff; --card: #f5f7f9;
  --one: #0b6bcb; --two: #c2410c; --three: #6d28d9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --soft: #9aa5b1; --line: #333b44; --page: #14181c;
  --card: #1c2228; --one: #5aa9f5; --two: #fb923c; --three: #b794f6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
.lead { font-size: 1.05rem; margin: 0 0 1.5rem; }
.lead, .note { color: var(--soft); max-width: 46rem; }
.note { margin: 0 0 .75rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 0; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
.figures dt { color: var(--soft); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .3rem .75rem; align-items: center;
  font-variant-numeric: tabular-nums; }
.bars .track { position: relative; height: .9rem; background: var(--card); border-radius: .25rem; }
.bars .track b { display: block; height: 100%; background: var(--one); border-radius: .25rem; }
.bars .track i { position: absolute; top: -.15rem; bottom: -.15rem; width: 2px; background: var(--two); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .9rem 1rem; margin: 0 0 .9rem;
  font: 13px/1.5 ui-monospace, monospace; overflow-x: auto; }
pre.sample { white-space: pre-wrap; overflow-wrap: anywhere; }
pre.sample b { color: var(--one); font-weight: 600; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; }
svg text { fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round; }
svg .faint { fill: none; stroke-width: 1; opacity: .35; }
svg .level { fill: none; stroke-width: 2; stroke-dasharray: 7 5; }
svg .dot { stroke: var(--page); stroke-width: 2; }
svg .s0 { stroke: var(--one); } svg .s1 { stroke: var(--two); } svg .s2 { stroke: var(--three); }
svg .dot.s0 { fill: var(--one); stroke: var(--page); } svg .dot.s1 { fill: var(--two); stroke: var(--page); }
svg .dot.s2 { fill: var(--three); stroke: var(--page); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: .25rem 0 0; padding: 0; list-style: none; }
.legend { color: var(--soft); font-size: .9rem; }
.legend svg { display: inline-block; width: 1.75rem; height: .75rem; margin-right: .45rem; vertical-align: middle; }
";

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let chart = Chart {
            x_label: "step",
            y_label: "loss",
            series: vec![Series {
                label: "training".into(),
                mark: Mark::Line,
                points: vec![(1.0, 9.0), (2.0, 7.5)],
            }],
        };
        let section = |title: &str, content| Section { title: title.into(), note: String::new(), content };
        Report {
            title: "A <run>".into(),
            lead: "Lead & more".into(),
            stats: vec![Stat { label: "loss", value: "7.5".into() }],
            sections: vec![
                section("Curve", Content::Chart(chart)),
                section(
                    "Mix",
                    Content::Table {
                        header: vec!["source", "tokens"],
                        rows: vec![vec!["code".into(), "1".into()]],
                    },
                ),
                section(
                    "Samples",
                    Content::Samples(vec![Sample { prompt: "fn <T>".into(), text: "()\u{1b}[31m".into() }]),
                ),
                section("Run file", Content::Listing("lr = 1e-3".into())),
            ],
        }
    }

    #[test]
    fn bars_share_a_scale_with_their_marks() {
        let bar = |label: &str, amount, mark| Bar {
            label: label.into(),
            amount,
            value_text: amount.to_string(),
            mark,
        };
        let html = bars(&[bar("a<b", 1.0, Some(4.0)), bar("c", 2.0, None)]);
        assert!(html.contains("a&lt;b") && !html.contains("a<b"), "{html}");
        for expected in ["width:25.00%", "left:100.00%", "width:50.00%"] {
            assert!(html.contains(expected), "{expected}: {html}");
        }
        assert!(!bars(&[bar("none", 0.0, None)]).contains("NaN"));
    }

    #[test]
    fn the_page_is_whole_and_needs_nothing_from_elsewhere() {
        let html = report().to_html();
        assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
        for foreign in ["http:", "https:", "<script", "<link", "@import", "url("] {
            assert!(!html.contains(foreign), "{foreign}");
        }
        for tag in ["main", "section", "table", "pre", "svg", "dl", "ul"] {
            let count = |text: &str| html.matches(text).count();
            assert_eq!(
                count(&format!("<{tag}>")) + count(&format!("<{tag} ")),
                count(&format!("</{tag}>")),
                "{tag}"
            );
        }
    }

    #[test]
    fn text_cannot_become_markup_or_control() {
        let html = report().to_html();
        assert!(
            html.contains("A &lt;run&gt;")
                && html.contains("fn &lt;T&gt;")
                && html.contains("Lead &amp; more")
        );
        assert!(!html.contains('\u{1b}'));
    }
}
