//! How results are printed: tables for people, JSON and YAML for programs, colour where it helps.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::ColorChoice;
use crate::failure::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

static COLOR: OnceLock<bool> = OnceLock::new();

/// Decides once for the process. NO_COLOR counts when it is not empty (no-color.org).
pub fn choose_color(choice: ColorChoice) {
    let on = match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
                && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
                && std::io::stdout().is_terminal()
        }
    };
    COLOR.get_or_init(|| on);
}

pub fn color() -> bool {
    COLOR.get().copied().unwrap_or(false)
}

/// What a piece of text means; each meaning has one colour everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Dim,
    Strong,
    Good,
    Busy,
    Warn,
    Bad,
}

impl Tone {
    /// The SGR code of the terminal.
    fn code(self) -> &'static str {
        match self {
            Tone::Dim => "2",
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Busy => "36",
            Tone::Warn => "33",
            Tone::Bad => "31",
        }
    }
}

/// The text in the tone's colour, where `color` is on.
pub fn paint(text: impl AsRef<str>, tone: Tone, color: bool) -> String {
    if color {
        format!("\x1b[{}m{}\x1b[0m", tone.code(), text.as_ref())
    } else {
        text.as_ref().to_owned()
    }
}

/// Prints text, ending the command quietly when the reader has gone (`| head`).
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(anyhow::Error::from(e).into()),
        _ => Ok(()),
    }
}

pub fn println(text: impl AsRef<str>) -> Result<()> {
    print(&format!("{}\n", text.as_ref()))
}

/// A value for programs.
pub fn print_value(value: &impl Serialize, format: Format) -> Result<()> {
    let text = match format {
        Format::Yaml => serde_saphyr::to_string(value).map_err(anyhow::Error::from)?,
        Format::Json | Format::Table => {
            serde_json::to_string_pretty(value).map_err(anyhow::Error::from)? + "\n"
        }
    };
    print(&text)
}

/// A table as kubectl prints it: capitals above, no lines, two spaces between columns.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    let last = header.len().saturating_sub(1);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if i == last { 0 } else { 3 }));
    }
    let text = table.trim_fmt();
    if text.is_empty() { text } else { text + "\n" }
}

/// A duration as kubectl writes ages: `45s`, `5m3s`, `4h12m`, `3d`.
pub fn age(seconds: i64) -> String {
    let s = seconds.max(0);
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    match s {
        0..=119 => format!("{s}s"),
        120..=599 if s % 60 != 0 => format!("{m}m{}s", s % 60),
        120..=10_799 => format!("{m}m"),
        10_800..=28_799 if m % 60 != 0 => format!("{h}h{}m", m % 60),
        10_800..=172_799 => format!("{h}h"),
        172_800..=691_199 if h % 24 != 0 => format!("{d}d{}h", h % 24),
        _ => format!("{d}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        let cases = [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (303, "5m3s"),
            (600, "10m"),
            (15_120, "4h12m"),
            (259_200, "3d"),
            (900_000, "10d"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(age(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn tables_have_no_trailing_space() {
        let text = table(
            &["NAME", "READY"],
            vec![
                vec!["cart-prod".into(), "3/3".into()],
                vec!["a".into(), "0/1".into()],
            ],
        );
        assert_eq!(
            text,
            "NAME        READY\ncart-prod   3/3\na           0/1\n"
        );
    }

    #[test]
    fn colour_is_left_out_when_off() {
        assert_eq!(paint("x", Tone::Bad, false), "x");
        assert_eq!(paint("x", Tone::Bad, true), "\x1b[31mx\x1b[0m");
    }
}
