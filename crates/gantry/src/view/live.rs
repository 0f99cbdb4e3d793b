//! Draws a picture again and again in the same place of a terminal; elsewhere (a file, a pipe, CI)
//! it prints what is new, a line a change.

use std::io::{IsTerminal, Write};

/// A place on the standard output that can be redrawn.
pub struct Live {
    terminal: bool,
    drawn: usize,
    last: Vec<String>,
}

impl Live {
    pub fn new() -> Self {
        Live {
            terminal: std::io::stdout().is_terminal(),
            drawn: 0,
            last: vec![],
        }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns and rows to draw in.
    pub fn size(&self) -> (usize, usize) {
        match crossterm::terminal::size() {
            Ok((columns, rows)) if self.terminal && columns > 0 => {
                (columns as usize, rows as usize)
            }
            _ => (120, 50),
        }
    }

    /// Replaces the last picture. On no terminal, prints the lines that the last picture did not have.
    pub fn draw(&mut self, lines: &[String]) {
        if lines == self.last {
            return;
        }
        let mut text = String::new();
        if self.terminal {
            if self.drawn > 0 {
                text.push_str(&format!("\x1b[{}A\r", self.drawn));
            }
            for line in lines {
                text.push_str(&format!("{line}\x1b[K\n"));
            }
            text.push_str("\x1b[J");
            self.drawn = lines.len();
        } else {
            for line in lines.iter().filter(|l| !self.last.contains(l)) {
                text.push_str(&format!("{line}\n"));
            }
        }
        self.last = lines.to_vec();
        // A reader that has gone does not end the work that is shown to it.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
