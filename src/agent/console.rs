//! The machine's screens: every console that the kernel prints on (serial port and video alike) shows what the agent
//! does, and, in a box, why it stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::Uptime;

/// Width of a plain text screen.
const COLUMNS: usize = 80;

/// All consoles as one writer. Cheap to clone.
#[derive(Clone)]
pub struct Console(Arc<Mutex<Vec<File>>>);

impl Console {
    /// Opens what the kernel calls its active consoles, `tty0 ttyS0`; where it names none, /dev/console.
    pub fn open(sys: &Path, dev: &Path) -> Self {
        let active = fs::read_to_string(sys.join("class/tty/console/active")).unwrap_or_default();
        let mut screens: Vec<File> = active.split_whitespace().filter_map(|name| open(&dev.join(name))).collect();
        if screens.is_empty() {
            screens.extend(open(&dev.join("console")));
        }
        Self(Arc::new(Mutex::new(screens)))
    }

    /// Sends `tracing`'s records here, with the seconds since start.
    pub fn show_tracing(&self) {
        let subscriber = tracing_subscriber::fmt()
            .with_timer(Uptime::default())
            .with_target(false)
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(self.clone())
            .finish();
        // Fails only if a subscriber is set already; then that one shows the records.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }

    /// Shows why the machine stops, with a frame around it.
    pub fn stop(&self, paragraphs: &[&str]) {
        let mut screens = self.clone();
        // A console that cannot be written to cannot be told so either.
        let _ = screens.write_all(frame(paragraphs).as_bytes());
    }
}

fn open(path: &Path) -> Option<File> {
    OpenOptions::new().write(true).open(path).ok()
}

impl Write for Console {
    /// Writes to every screen; one that fails does not keep the text from the others.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        for screen in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let _ = screen.write_all(text);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Console {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Paragraphs in a frame of plain ASCII, since a serial line may show nothing else.
fn frame(paragraphs: &[&str]) -> String {
    let rule = format!("+{}+\n", "-".repeat(COLUMNS - 2));
    let mut text = format!("\n{rule}");
    for (index, paragraph) in paragraphs.iter().enumerate() {
        if index > 0 {
            text.push_str(&format!("|{:1$}|\n", "", COLUMNS - 2));
        }
        for line in paragraph.lines().flat_map(|line| wrap(line, COLUMNS - 4)) {
            text.push_str(&format!("| {line:0$} |\n", COLUMNS - 4));
        }
    }
    text + &rule
}

/// Breaks `line` at spaces; a word that is wider than a line is cut.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in line.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > width {
            lines.push(String::new());
            used = 0;
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.into_iter().collect());
            word = rest;
            used = 0;
            lines.push(String::new());
        }
        if let Some(last) = lines.last_mut() {
            if used > 0 {
                last.push(' ');
                used += 1;
            }
            used += word.len();
            last.extend(word);
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_wraps_its_text_and_is_80_columns_wide() {
        let long =
            format!("the disk {} is too small for the image, which needs 10 GB of room at least", "x".repeat(200));
        let text = frame(&["The machine stops here.", &long]);
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert!(lines.iter().all(|line| line.chars().count() == COLUMNS), "{text}");
        assert_eq!(lines[1], format!("| {:76} |", "The machine stops here."));
        assert_eq!(text.matches('x').count(), 200);
        assert!(text.contains("room at least"));
    }

    #[test]
    fn writes_to_every_active_console_and_survives_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let tty = dir.path().join("class/tty/console");
        fs::create_dir_all(&tty).unwrap();
        fs::write(tty.join("active"), "tty0 ttyS0 ttyS9\n").unwrap();
        for name in ["tty0", "ttyS0", "console"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        write!(Console::open(dir.path(), dir.path()), "hello").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("tty0")).unwrap(), "hello");
        assert_eq!(fs::read_to_string(dir.path().join("ttyS0")).unwrap(), "hello");
        assert_eq!(fs::read_to_string(dir.path().join("console")).unwrap(), "");
    }
}
