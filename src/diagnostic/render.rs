//! Diagnostics as rustc prints them: message, place, the line, a caret, a hint.

use super::{Diagnostic, Diagnostics, Excerpt, Severity};
use std::fmt::Write;
use std::ops::Range;
use unicode_width::UnicodeWidthChar;

/// Most diagnostics printed as text; JSON has them all.
const MOST: usize = 200;
/// Most columns of a line that are shown; the same everywhere, so that output can be compared.
const WIDTH: usize = 100;
/// Columns kept before the marked part of a line that is too long.
const BEFORE: usize = 30;

/// Escape sequences of the parts, all empty without colour.
struct Style {
    error: &'static str,
    warning: &'static str,
    frame: &'static str,
    bold: &'static str,
    end: &'static str,
}

const PLAIN: Style = Style { error: "", warning: "", frame: "", bold: "", end: "" };
const COLOUR: Style =
    Style { error: "\x1b[1;31m", warning: "\x1b[1;33m", frame: "\x1b[1;34m", bold: "\x1b[1m", end: "\x1b[0m" };

impl Diagnostics {
    /// For a terminal (with `colour`) or a file; ends with a line that counts them. Nothing if there are none.
    pub fn render(&self, colour: bool) -> String {
        let style = if colour { &COLOUR } else { &PLAIN };
        let mut text = String::new();
        for diagnostic in self.iter().take(MOST) {
            render(&mut text, diagnostic, style);
            text.push('\n');
        }
        let counts: Vec<String> = [(Severity::Error, "error"), (Severity::Warning, "warning")]
            .into_iter()
            .map(|(severity, name)| (self.count(severity), name))
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}{}", if count == 1 { "" } else { "s" }))
            .collect();
        if !counts.is_empty() {
            text.push_str(&counts.join(", "));
            if self.0.len() > MOST {
                let _ = write!(text, "; the first {MOST} are shown, `metalgate validate --output json` has all");
            }
            text.push('\n');
        }
        text
    }
}

fn render(text: &mut String, diagnostic: &Diagnostic, style: &Style) {
    let Style { error, warning, frame, bold, end } = style;
    let (colour, name) = match diagnostic.severity {
        Severity::Error => (error, "error"),
        Severity::Warning => (warning, "warning"),
    };
    let place = &diagnostic.place;
    let number = place.position.map(|(line, _)| line.to_string()).unwrap_or_default();
    let gutter = " ".repeat(number.len());
    let position = place.position.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{colour}{name}{end}{bold}: {}{end}", printable(&diagnostic.message));
    let _ = writeln!(text, "{gutter}{frame}-->{end} {}{position}", place.file);
    if let Some(excerpt) = &place.excerpt {
        let (line, marked) = cropped(excerpt);
        let caret = format!("{}{}", " ".repeat(marked.start), "^".repeat(marked.len().max(1)));
        let _ = writeln!(text, "{gutter} {frame}|{end}");
        let _ = writeln!(text, "{frame}{number} |{end} {line}");
        let _ = writeln!(text, "{gutter} {frame}|{end} {colour}{caret}{end}");
    }
    if let Some(hint) = &diagnostic.hint {
        let _ = writeln!(text, "{gutter} {frame}={end} {bold}hint{end}: {}", printable(hint));
    }
}

/// The line as it is shown, at most [`WIDTH`] columns of it, and the columns that are marked.
fn cropped(excerpt: &Excerpt) -> (String, Range<usize>) {
    // A control character (a tab too) takes one column here, whatever the terminal would make of it.
    let cells: Vec<(char, usize)> =
        excerpt.line.chars().map(visible).map(|shown| (shown, shown.width().unwrap_or(1))).collect();
    let columns = |range: Range<usize>| cells[range].iter().map(|(_, width)| width).sum::<usize>();
    let (start, end) = (excerpt.marked.start.min(cells.len()), excerpt.marked.end.min(cells.len()));
    let from = if columns(0..end) > WIDTH { start - fitting(cells[..start].iter().rev(), BEFORE) } else { 0 };
    let to = from + fitting(cells[from..].iter(), WIDTH);
    let (left, right) = (if from > 0 { "…" } else { "" }, if to < cells.len() { "…" } else { "" });
    let shown: String = cells[from..to].iter().map(|(shown, _)| *shown).collect();
    let before = columns(from..start) + usize::from(from > 0);
    let marked = columns(start..end.clamp(start, to.max(start)));
    (format!("{left}{shown}{right}"), before..before + marked)
}

/// How many of the characters fit into so many columns.
fn fitting<'a>(cells: impl Iterator<Item = &'a (char, usize)>, columns: usize) -> usize {
    let mut used = 0;
    cells
        .take_while(|(_, width)| {
            used += width;
            used <= columns
        })
        .count()
}

/// Text that may hold what a terminal would obey, made harmless.
fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        character if character.is_control() => '\u{fffd}',
        character => character,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Place, Source};
    use super::*;
    use pretty_assertions::assert_eq;

    fn of(text: &str, range: Range<usize>) -> Diagnostics {
        let source = Source::new("f", text.as_bytes().to_vec()).unwrap();
        Diagnostics::of(Diagnostic::error(source.place(range), "no").hint("yes"))
    }

    #[test]
    fn a_mistake_is_shown_with_its_line_and_a_caret_under_it() {
        let text = "one\ntwo three\n";
        assert_eq!(
            of(text, 8..13).render(false),
            "error: no\n --> f:2:5\n  |\n2 | two three\n  |     ^^^^^\n  = hint: yes\n\n1 error\n"
        );
        assert!(of(text, 8..13).render(true).contains("\x1b[1;31merror\x1b[0m"));
        assert_eq!(Diagnostics::default().render(false), "");
    }

    #[test]
    fn carets_stand_under_wide_and_combining_characters_and_tabs() {
        assert!(of("\t日本: x", 9..10).render(false).contains("1 |  日本: x\n  |        ^\n"));
        assert!(of("e\u{301}: x", 5..6).render(false).contains("  |    ^\n"));
    }

    #[test]
    fn a_terminal_is_not_obeyed_by_the_text_of_a_file() {
        let shown = of("a\x1b[2Jb", 0..1).render(false);
        assert!(!shown.contains('\x1b') && shown.contains("a\u{fffd}[2Jb"), "{shown}");
    }

    #[test]
    fn long_lines_are_cut_around_what_is_meant() {
        let line = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let shown = of(&line, 500..504).render(false);
        let expected = format!("1 | …{}HERE{}…\n  |  {}^^^^\n", "a".repeat(30), "b".repeat(66), " ".repeat(30));
        assert!(shown.contains(&expected), "{shown}");
        // What is meant may be longer than what is shown.
        let shown = of(&"x".repeat(1_000_000), 0..1_000_000).render(false);
        assert!(shown.lines().all(|line| line.chars().count() <= 110), "{shown}");
    }

    #[test]
    fn a_file_as_a_whole_has_no_line() {
        let whole = Diagnostics::of(Diagnostic::warning(Place::file("f"), "old"));
        assert_eq!(whole.render(false), "warning: old\n--> f\n\n1 warning\n");
    }
}
