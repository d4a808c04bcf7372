//! A file the user wrote, and places in it.

use super::Diagnostic;
use std::borrow::Cow;
use std::ops::Range;

/// Longest offending text that is repeated in a message's data, in characters.
const MAX_TEXT: usize = 80;
/// Most bytes of a line that are kept on either side of what is meant: a line can be the whole file.
const AROUND: usize = 600;

/// A text file in memory that can say where a byte is.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    /// Byte at which each line begins.
    lines: Vec<usize>,
    /// What must never be shown, in order: passwords.
    hidden: Vec<Range<usize>>,
}

/// A place in a file, with what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: String,
    /// Line and column, both counted from 1, the column in characters; none where the whole file is meant.
    pub position: Option<(u64, u64)>,
    /// The offending text; `***` if it is a secret.
    pub text: String,
    /// The line as it may be shown.
    pub excerpt: Option<Excerpt>,
}

/// A line of a file, and what of it is meant, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, secrets masked.
    pub line: String,
    /// The part of it that is meant.
    pub marked: Range<usize>,
}

impl Place {
    /// A file as a whole.
    pub fn file(name: &str) -> Self {
        Self { file: name.to_owned(), position: None, text: String::new(), excerpt: None }
    }

    /// The same place without the line around it: for lines that cannot be told apart from the secrets in them.
    pub fn without_excerpt(self) -> Self {
        Self { excerpt: None, ..self }
    }
}

impl Source {
    /// Takes the bytes of the file called `name`; a byte order mark is left out of columns and text.
    ///
    /// # Errors
    /// The file is not UTF-8.
    pub fn new(name: &str, bytes: Vec<u8>) -> Result<Self, Box<Diagnostic>> {
        let error = match String::from_utf8(bytes) {
            Ok(text) => return Ok(Self::of_text(name, text)),
            Err(error) => error,
        };
        let (good, bytes) = (error.utf8_error().valid_up_to(), error.into_bytes());
        let utf16 = matches!(bytes.get(..2), Some([0xff, 0xfe] | [0xfe, 0xff]));
        let read = Self::of_text(name, String::from_utf8_lossy(&bytes[..good]).into_owned());
        let byte = bytes.get(good).map(|byte| format!("0x{byte:02x}")).unwrap_or_default();
        let place = Place { text: byte.clone(), ..read.place(good..good) }.without_excerpt();
        let hint = if utf16 { "it looks like UTF-16; save it as UTF-8" } else { "save the file as UTF-8" };
        Err(Box::new(Diagnostic::error(place, format!("the file is not UTF-8: byte {byte}")).hint(hint)))
    }

    /// A file of which nothing could be read.
    pub fn empty(name: &str) -> Self {
        Self::of_text(name, String::new())
    }

    fn of_text(name: &str, text: String) -> Self {
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        let bytes = text.as_bytes();
        // A carriage return ends a line too, where no line feed follows.
        let ends = |at: &usize| bytes[*at] == b'\n' || (bytes[*at] == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
        let lines = std::iter::once(0).chain((0..bytes.len()).filter(ends).map(|at| at + 1)).collect();
        Self { name: name.to_owned(), text, lines, hidden: Vec::new() }
    }

    /// The file's name, as the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Never shows these bytes.
    pub fn hide(&mut self, ranges: impl IntoIterator<Item = Range<usize>>) {
        self.hidden.extend(ranges.into_iter().filter(|range| !range.is_empty()));
        self.hidden.sort_by_key(|range| range.start);
        self.hidden.dedup_by(|next, last| {
            let overlap = next.start <= last.end;
            if overlap {
                last.end = last.end.max(next.end);
            }
            overlap
        });
    }

    /// Line of a byte, counted from 1.
    pub fn line(&self, byte: usize) -> u64 {
        self.lines.partition_point(|begin| *begin <= byte) as u64
    }

    /// Where `range` is; of a range over several lines, the first one is shown.
    pub fn place(&self, range: Range<usize>) -> Place {
        let start = self.boundary(range.start);
        let end = self.boundary(range.end.max(start));
        let number = self.line(start);
        let begin = self.lines[number as usize - 1];
        let line = self.text[begin..].split(['\r', '\n']).next().unwrap_or_default();
        let end = end.min(begin + line.len()).max(start);
        let column = self.text[begin..start].chars().count() as u64 + 1;
        let from = self.boundary(start.saturating_sub(AROUND).max(begin));
        let to = self.boundary((end + AROUND).min(begin + line.len()));
        let before = self.masked(from..start).chars().count();
        let marked = self.masked(start..end);
        let excerpt =
            Excerpt { line: self.masked(from..to).into_owned(), marked: before..before + marked.chars().count() };
        Place {
            file: self.name.clone(),
            position: Some((number, column)),
            text: shortened(&marked),
            excerpt: Some(excerpt),
        }
    }

    /// The last character boundary up to `byte`.
    fn boundary(&self, byte: usize) -> usize {
        let byte = byte.min(self.text.len());
        (0..=byte).rev().find(|byte| self.text.is_char_boundary(*byte)).unwrap_or_default()
    }

    /// The text of a range, with `***` for each secret in it.
    fn masked(&self, range: Range<usize>) -> Cow<'_, str> {
        let first = self.hidden.partition_point(|hidden| hidden.end <= range.start);
        let inside = self.hidden[first..].iter().take_while(|hidden| hidden.start < range.end);
        let (mut shown, mut at) = (String::new(), range.start);
        for secret in inside {
            shown.push_str(&self.text[at.min(secret.start.max(range.start))..secret.start.max(range.start)]);
            shown.push_str("***");
            at = secret.end;
        }
        if shown.is_empty() {
            return Cow::Borrowed(&self.text[range]);
        }
        shown.push_str(self.text.get(at..range.end).unwrap_or_default());
        Cow::Owned(shown)
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn at(text: &str, range: Range<usize>) -> (Option<(u64, u64)>, String) {
        let place = Source::new("f", text.into()).unwrap().place(range);
        (place.position, place.text)
    }

    #[test]
    fn columns_count_characters_and_every_kind_of_line_end_counts() {
        assert_eq!(at("ä: ö", 4..6), (Some((1, 4)), "ö".into()));
        for text in ["a\nbc", "a\rbc", "a\r\nbc"] {
            let from = text.len() - 1;
            assert_eq!(at(text, from..from + 1), (Some((2, 2)), "c".into()), "{text:?}");
        }
        // A byte order mark is no column.
        assert_eq!(at("\u{feff}ab", 1..2), (Some((1, 2)), "b".into()));
    }

    #[test]
    fn places_are_within_the_file_whatever_is_asked_for() {
        assert_eq!(at("ab", 7..9), (Some((1, 3)), "".into()));
        assert_eq!(at("äb", 1..2), (Some((1, 1)), "ä".into()));
        assert_eq!(at("ab\ncd", 1..5), (Some((1, 2)), "b".into()));
        assert_eq!(at("", 0..0), (Some((1, 1)), "".into()));
    }

    #[test]
    fn what_is_hidden_is_shown_nowhere() {
        let mut source = Source::new("f", "a,pass,b,word,c".into()).unwrap();
        source.hide([9..13, 2..6, 3..5]);
        let place = source.place(7..8);
        assert_eq!(place.excerpt, Some(Excerpt { line: "a,***,b,***,c".into(), marked: 6..7 }));
        assert_eq!(source.place(3..5).text, "***");
        assert_eq!(source.place(0..15).text, "a,***,b,***,c");
    }

    #[test]
    fn a_file_that_is_not_utf8_is_refused_at_the_byte() {
        let refused = Source::new("f", b"ab\nc\xffd".to_vec()).unwrap_err();
        assert_eq!((refused.place.position, refused.place.text.as_str()), (Some((2, 2)), "0xff"));
    }
}
