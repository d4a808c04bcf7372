//! `lab up`: files, network, daemon, in this order; on failure everything made so far is taken down again.

use super::control::Client;
use super::down::{self, Keep};
use super::files;
use super::rack::{self, Rack};
use super::{LabError, at, host, network};
use crate::image::choice::ImageChoice;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The daemon answers within a fraction of a second; making keys on a loaded host may take longer.
const DAEMON_PATIENCE: Duration = Duration::from_secs(30);

/// Holds the lab called `name` while a command changes it; let go when dropped, or when we die.
pub struct Lock {
    file: std::fs::File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock, unless another command has it.
    pub fn take(name: &str) -> Result<Self, LabError> {
        let dir = rack::run_dir("");
        files::make_dir(&dir)?;
        let path = dir.join(format!("{name}.lock"));
        loop {
            let mut options = std::fs::OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(at(&path))?;
            file.try_lock().map_err(|_| LabError::Busy(name.to_owned()))?;
            // The one who had it may have removed the file in between: then this lock holds nothing.
            let held = file.metadata().map_err(at(&path))?.ino();
            if std::fs::metadata(&path).is_ok_and(|now| now.ino() == held) {
                return Ok(Self { file, path });
            }
        }
    }
}

impl Drop for Lock {
    /// Leaves nothing behind: the file goes while it is still locked.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Where a lab's record is. It exists from before the first thing is made until after the last is removed.
pub fn record(name: &str) -> PathBuf {
    rack::run_dir(name).join("lab.json")
}

/// Reads the record of the lab called `name`; `None` if there is no such lab.
pub fn load(name: &str) -> Result<Option<Rack>, LabError> {
    rack::check_name(name)?;
    let path = record(name);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path)(error)),
    };
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|error| LabError::Record { reason: error.to_string(), dir: rack::run_dir(name), path })
}

/// How `up` found things.
#[derive(Debug)]
pub enum Outcome {
    /// The lab was made.
    Made,
    /// It was up already, as it was made then.
    WasUp(Box<Rack>),
}

/// Makes the lab. One that is up already stays as it is; what is left of one that broke is taken down first.
pub async fn up(rack: &Rack, image: Option<&ImageChoice>) -> Result<Outcome, LabError> {
    host::check(rack.installed)?;
    host::Needed::of(rack).check()?;
    let _lock = Lock::take(&rack.name)?;
    if let Some(old) = load(&rack.name)? {
        if Client::new(&old)?.machines().await.is_ok() {
            return Ok(Outcome::WasUp(Box::new(old)));
        }
        down::take_down(&old, Keep::Nothing).await?;
    }
    if network::exists(&rack.namespace()) {
        return Err(LabError::NamespaceTaken(rack.namespace()));
    }
    files::refuse_existing(rack)?;
    match make(rack, image).await {
        Ok(()) => Ok(Outcome::Made),
        Err(error) => {
            if let Err(left) = down::take_down(rack, Keep::Nothing).await {
                tracing::error!(error = %left, "the half-made lab could not be taken down");
            }
            Err(error)
        }
    }
}

async fn make(rack: &Rack, image: Option<&ImageChoice>) -> Result<(), LabError> {
    files::make_dir(&rack::run_dir(&rack.name))?;
    let path = record(&rack.name);
    let text = serde_json::to_string_pretty(rack).map_err(std::io::Error::from).map_err(at(&path))?;
    files::write_private(&path, &text)?;
    files::make_dir(&rack.dir)?;
    files::make(rack, image)?;
    network::make(rack).await?;
    let mut daemon = start_daemon(rack)?;
    wait_for(rack, &mut daemon).await
}

/// Runs this very program again inside the namespace.
fn start_daemon(rack: &Rack) -> Result<Child, LabError> {
    let path = rack.log();
    let mut options = std::fs::OpenOptions::new();
    let log = options.create(true).append(true).mode(0o600).open(&path).map_err(at(&path))?;
    let program = std::env::current_exe().map_err(at(std::path::Path::new("/proc/self/exe")))?;
    Command::new("ip")
        .args(["netns", "exec", &rack.namespace()])
        .arg(program)
        .args(["lab", "serve", "--name", &rack.name])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| LabError::Command { command: "ip netns exec".into(), reason: error.to_string() })
}

async fn wait_for(rack: &Rack, daemon: &mut Child) -> Result<(), LabError> {
    let failed = |reason: String| LabError::NotStarted { lab: rack.name.clone(), reason };
    let client = Client::new(rack)?;
    let end = Instant::now() + DAEMON_PATIENCE;
    loop {
        let answer = client.machines().await;
        if answer.is_ok() {
            return Ok(());
        }
        if let Ok(Some(status)) = daemon.try_wait() {
            let log = std::fs::read_to_string(rack.log()).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it wrote no log");
            return Err(failed(format!("it ended with {status}: {last}")));
        }
        if Instant::now() > end {
            return Err(failed(format!("nothing for {} s", DAEMON_PATIENCE.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
