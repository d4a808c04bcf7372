//! CSV as cells that know where they stand.
//!
//! RFC 4180 by csv-core, the machine below the csv crate, which says how many bytes a cell took. It takes anything for
//! CSV, so quotes that are out of place are looked for here.

use crate::diagnostic::{Problem, Source};
use csv_core::{ReadFieldResult, Reader};
use std::ops::Range;

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Without quotes.
    pub value: String,
    /// Bytes in the file, quotes included.
    pub range: Range<usize>,
    /// Quotes that are out of place.
    pub problem: Option<Problem>,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Record {
    /// Line at which it begins, counted from 1.
    pub line: u64,
    pub cells: Vec<Cell>,
}

impl Record {
    /// Whether every cell is empty, as in the last rows that spreadsheets write.
    pub fn is_blank(&self) -> bool {
        self.cells.iter().all(|cell| cell.value.trim().is_empty())
    }
}

/// All rows, the header first; lines without a character are left out.
pub fn records(source: &Source) -> Vec<Record> {
    let text = source.text();
    let (mut reader, mut value) = (Reader::new(), vec![0; text.len()]);
    let (mut records, mut cells, mut at) = (Vec::new(), Vec::new(), 0);
    loop {
        let begin = at;
        let (mut result, read, mut written) = reader.read_field(&text.as_bytes()[at..], &mut value);
        at += read;
        if result == ReadFieldResult::InputEmpty {
            // What is left is the file's last cell.
            let (end, _, more) = reader.read_field(&[], &mut value[written..]);
            (result, written) = (end, written + more);
        }
        let ReadFieldResult::Field { record_end } = result else { return records };
        let range = trimmed(text, begin..at, cells.is_empty(), record_end);
        let value = String::from_utf8_lossy(&value[..written]).into_owned();
        let problem = quotes(&text[range.clone()], at == text.len());
        cells.push(Cell { value, range, problem });
        if record_end {
            let line = cells.first().map(|cell| source.line(cell.range.start)).unwrap_or(1);
            records.push(Record { line, cells: std::mem::take(&mut cells) });
        }
    }
}

/// The cell alone: without line ends left over before it, and without what ended it.
fn trimmed(text: &str, range: Range<usize>, first: bool, last: bool) -> Range<usize> {
    let raw = &text[range.clone()];
    let cell = if first { raw.trim_start_matches(['\r', '\n']) } else { raw };
    let start = range.end - cell.len();
    let end = if last { ["\r\n", "\n", "\r"].as_slice() } else { [","].as_slice() };
    let cell = end.iter().find_map(|end| cell.strip_suffix(end)).unwrap_or(cell);
    start..start + cell.len()
}

fn quotes(raw: &str, at_end: bool) -> Option<Problem> {
    let Some(rest) = raw.strip_prefix('"') else {
        let hint = "put the whole cell between quotes, and write a quote in it twice";
        return raw
            .contains('"')
            .then(|| Problem::new("a quote inside a cell that does not begin with one").hint(hint));
    };
    let even = rest.strip_suffix('"').is_some_and(|inner| !inner.replace("\"\"", "").contains('"'));
    if even {
        return None;
    }
    let unclosed = at_end && rest.matches('"').count().is_multiple_of(2);
    Some(match unclosed {
        true => Problem::new("this quote is never closed").hint("write a quote inside a cell twice"),
        false => Problem::new("text after the quote that closes the cell").hint("write a quote inside a cell twice"),
    })
}
