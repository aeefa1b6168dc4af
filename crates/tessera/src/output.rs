//! How the program speaks: results on stdout, everything else on stderr.

use crate::cli::{Global, When};
use crate::hints;
use serde::Serialize;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};

/// Where and how a command prints.
#[derive(Clone, Debug)]
pub struct Output {
    /// Results as JSON.
    pub json: bool,
    /// No notes and no progress.
    pub quiet: bool,
    /// How much detail: 0, 1, 2.
    pub verbose: u8,
    color: bool,
}

/// Stdout is a pipe that its reader has closed. Not a failure; `main` ends quietly.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
pub struct StdoutClosed;

/// An error of the program itself, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Hinted {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// An error with a hint.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into() }.into()
}

/// Whether an error means only that nobody reads stdout any more.
pub fn is_closed_stdout(error: &anyhow::Error) -> bool {
    error.is::<StdoutClosed>()
}

impl Output {
    /// From the command line and the terminal.
    pub fn new(global: &Global) -> Output {
        let color = match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && io::stderr().is_terminal()
            }
        };
        Output { json: global.json, quiet: global.quiet, verbose: global.verbose, color }
    }

    /// Text and a line end on stdout.
    pub fn line(&self, text: impl Display) -> anyhow::Result<()> {
        self.text(format_args!("{text}\n"))
    }

    /// Text on stdout, written at once.
    pub fn text(&self, text: impl Display) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
            Err(e) => Err(anyhow::Error::new(e).context("cannot write to stdout")),
        }
    }

    /// A value as JSON on stdout.
    pub fn print_json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// Rows with aligned columns under a heading. Columns that hold only sizes or numbers are given
    /// in `right` and aligned on the right.
    pub fn table(&self, head: &[&str], right: &[usize], rows: &[Vec<String>]) -> anyhow::Result<()> {
        self.text(render_table(head, right, rows))
    }

    /// A remark for the user on stderr, unless it is to be quiet.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            // Nobody to tell that stderr is gone.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// A remark that only `-v` shows.
    pub fn detail(&self, text: impl Display) {
        if self.verbose > 0 {
            self.note(text);
        }
    }

    /// A bar on stderr that counts to `total`; hidden where there is no terminal to show it.
    pub fn progress(&self, total: u64, unit: &str) -> indicatif::ProgressBar {
        if !self.shows_progress() {
            return indicatif::ProgressBar::hidden();
        }
        let bar = indicatif::ProgressBar::new(total);
        let style = format!("{{bar:32}} {{pos}}/{{len}} {unit}  {{elapsed}} (left: {{eta}})");
        match indicatif::ProgressStyle::with_template(&style) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    /// Whether progress bars make sense.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && !self.json && io::stderr().is_terminal()
    }

    /// The final word about an error, with its causes and a hint.
    pub fn report(&self, error: &anyhow::Error) {
        let message = chain_text(error);
        let hint = hint_of(error);
        if self.json {
            print_json_error(&message, hint.as_deref());
            return;
        }
        let (red, cyan, end) =
            if self.color { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error:{end} {message}\n");
        if let Some(hint) = hint {
            text.push_str(&format!("{cyan}hint:{end} {hint}\n"));
        }
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// `{"error":{"message":...,"hint":...}}` on stderr.
pub fn print_json_error(message: &str, hint: Option<&str>) {
    let value = serde_json::json!({ "error": { "message": message, "hint": hint } });
    let _ = writeln!(io::stderr(), "{value}");
}

/// The causes in one line, leaving out those that the line before already ends with.
fn chain_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What to do about an error.
pub fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(hinted) = cause.downcast_ref::<Hinted>() {
            return Some(hinted.hint.clone());
        }
        hints::of(cause)
    })
}

fn render_table(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|h| h.to_string()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            line += &if right.contains(&column) {
                format!("{gap}{pad}{cell}")
            } else {
                format!("{gap}{cell}{pad}")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A number of bytes for people: `93.8 MiB`.
#[derive(Clone, Copy)]
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        if value < 1024.0 {
            return write!(f, "{} B", self.0);
        }
        for unit in ["KiB", "MiB", "GiB"] {
            value /= 1024.0;
            // 1023.95 would be printed as 1024.0.
            if value < 1023.95 {
                return write!(f, "{value:.1} {unit}");
            }
        }
        write!(f, "{:.1} TiB", value / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        let show = |n| Bytes(n).to_string();
        assert_eq!(show(0), "0 B");
        assert_eq!(show(1023), "1023 B");
        assert_eq!(show(1024), "1.0 KiB");
        assert_eq!(show(98_362_432), "93.8 MiB");
        assert_eq!(show((1 << 30) - 1), "1.0 GiB");
        assert_eq!(show(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn tables_are_aligned() {
        let rows = vec![vec!["a".into(), "10".into()], vec!["long".into(), "9".into()]];
        assert_eq!(render_table(&["NAME", "N"], &[1], &rows), "NAME   N\na     10\nlong   9\n");
    }

    #[test]
    fn causes_are_not_repeated() {
        let inner = io::Error::other("disk is full");
        let error = anyhow::Error::new(inner).context("x.bin: disk is full").context("cannot pull");
        assert_eq!(chain_text(&error), "cannot pull: x.bin: disk is full");
    }
}
