//! What a child process prints: into a file of bounded size, with its last lines kept at hand for the error that quotes
//! them.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A log that has grown to this many bytes is put aside as `NAME.old`, and a new one is begun; so is the one of the run
/// before. Both together never take more than twice as much.
const LIMIT: u64 = 4 << 20;
/// How many bytes of the end are kept for errors.
const TAIL: usize = 2_000;

/// The last bytes that were written to a log.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<u8>>>);

/// An open log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    limit: u64,
    /// None once it could not be written: a full disk must not hold up the process that prints.
    file: Option<File>,
    written: u64,
    tail: Tail,
}

impl Log {
    /// Begins the log at `path`, mode 0600.
    pub fn begin(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, LIMIT)
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<Self> {
        let mut log = Self { path: path.to_owned(), limit, file: None, written: 0, tail: Tail::default() };
        log.turn()?;
        Ok(log)
    }

    /// Puts aside what is there, and begins anew.
    fn turn(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        match std::fs::rename(&self.path, old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = Some(OpenOptions::new().create_new(true).append(true).mode(0o600).open(&self.path)?);
        self.written = 0;
        Ok(())
    }

    /// Its last lines, also while it is written.
    pub fn tail(&self) -> Tail {
        self.tail.clone()
    }

    /// Copies all of `output` until its end.
    pub fn copy(mut self, mut output: impl Read) {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = output.read(&mut buffer) {
            self.tail.push(&buffer[..read]);
            if let Err(error) = self.write(&buffer[..read]) {
                tracing::warn!(log = %self.path.display(), %error, "cannot write the log");
                self.file = None;
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_some() && self.written + bytes.len() as u64 > self.limit {
            self.turn()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let surplus = tail.len().saturating_sub(TAIL);
        tail.drain(..surplus);
    }

    /// The last lines, whole ones unless the last one alone is too long.
    pub fn lines(&self) -> String {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = tail.len() == TAIL;
        let text = String::from_utf8_lossy(tail.make_contiguous()).trim_end().to_owned();
        match text.split_once('\n') {
            Some((_, whole)) if full => whole.to_owned(),
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_log_is_bounded_and_the_run_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("etcd.log"), dir.path().join("etcd.log.old"));
        Log::begin(&path).unwrap().copy(&b"the run before\n"[..]);
        let log = Log::begin(&path).unwrap();
        let tail = log.tail();
        log.copy(&b"this run\n"[..]);
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "the run before\n");
        assert_eq!(tail.lines(), "this run");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let log = Log::with_limit(&path, 20_000).unwrap();
        let tail = log.tail();
        let text: String = (0..20_000).map(|line| format!("line {line:05}\n")).collect();
        log.copy(text.as_bytes());
        for file in [&path, &old] {
            assert!(std::fs::metadata(file).unwrap().len() <= 20_000);
        }
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("line 19999\n"));
        let lines = tail.lines();
        assert!(lines.len() <= TAIL && lines.ends_with("line 19999"));
        assert!(lines.lines().all(|line| line.len() == "line 00000".len()), "only whole lines: {lines}");
    }

    #[test]
    fn a_log_that_cannot_be_written_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::begin(&dir.path().join("log")).unwrap();
        log.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let tail = log.tail();
        log.copy(&b"said anyway\n"[..]);
        assert_eq!(tail.lines(), "said anyway");
        assert!(Log::begin(&dir.path().join("no such directory/log")).is_err());
    }
}
