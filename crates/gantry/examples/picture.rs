//! Turns what a command printed on a terminal into an SVG, for the README:
//!
//! ```sh
//! tmux new-session -d -s demo -x 108 -y 62 'gantry demo'       # … and when the screen is worth it:
//! tmux capture-pane -t demo -p -e | cargo run -p gantry --example picture -- 'gantry demo' > docs/demo.svg
//! ```
//!
//! It knows the colour codes that Gantry prints, nothing else; the text is copied as it is.

use std::fmt::Write as _;
use std::io::Read;

const CHAR_WIDTH: f32 = 8.4;
const LINE_HEIGHT: f32 = 19.0;
const MARGIN: f32 = 18.0;
const TITLE_BAR: f32 = 34.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let title = std::env::args().nth(1).unwrap_or_else(|| "gantry".into());
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    print!("{}", svg(&title, &text));
    Ok(())
}

fn svg(title: &str, text: &str) -> String {
    let lines: Vec<Vec<(String, String)>> = text.lines().map(spans).collect();
    let columns = lines
        .iter()
        .map(|l| l.iter().map(|(_, t)| t.chars().count()).sum::<usize>())
        .max()
        .unwrap_or(0);
    let width = (columns as f32 * CHAR_WIDTH + 2.0 * MARGIN).ceil();
    let height = (lines.len() as f32 * LINE_HEIGHT + TITLE_BAR + 2.0 * MARGIN).ceil();
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">
<style>text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre;fill:#d8dee9}}.b{{font-weight:600;fill:#eceff4}}.d{{fill:#7b8698}}.g{{fill:#8fce7f}}.c{{fill:#79c3d6}}.y{{fill:#e8c777}}.r{{fill:#ec7f87}}</style>
<rect width="{width}" height="{height}" rx="9" fill="#1d222b"/>
<circle cx="20" cy="18" r="6" fill="#ec7f87"/><circle cx="40" cy="18" r="6" fill="#e8c777"/><circle cx="60" cy="18" r="6" fill="#8fce7f"/>
<text x="{middle}" y="23" text-anchor="middle" class="d">{label}</text>
"##,
        label = escape(title),
        middle = width / 2.0,
    );
    for (i, line) in lines.iter().enumerate() {
        let y = TITLE_BAR + MARGIN + (i as f32 + 0.5) * LINE_HEIGHT;
        let mut column = 0;
        for (class, text) in line {
            let count = text.chars().count();
            if !text.trim().is_empty() {
                // Each span is put where it belongs: fonts whose glyphs differ in width stay aligned.
                let (x, length) = (
                    MARGIN + column as f32 * CHAR_WIDTH,
                    count as f32 * CHAR_WIDTH,
                );
                let _ = writeln!(
                    out,
                    r#"<text x="{x:.1}" y="{y:.1}" textLength="{length:.1}" class="{class}">{}</text>"#,
                    escape(text)
                );
            }
            column += count;
        }
    }
    out + "</svg>\n"
}

/// A line's pieces with the class of their colour.
fn spans(line: &str) -> Vec<(String, String)> {
    let mut out = vec![];
    let mut class = "";
    for (i, piece) in line.split("\x1b[").enumerate() {
        let text = match piece.split_once('m') {
            Some((code, text)) if i > 0 => {
                for code in code.split(';') {
                    class = match code {
                        "1" => "b",
                        "2" => "d",
                        "31" => "r",
                        "32" => "g",
                        "33" => "y",
                        "36" => "c",
                        _ => "",
                    };
                }
                text
            }
            _ => piece,
        };
        if !text.is_empty() {
            out.push((class.to_owned(), text.to_owned()));
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
