//! A large inventory, read, checked and planned, beside a plain parse of the same file by the csv crate: `cargo bench`.
//!
//! Ends with exit code 1 where README's promise is broken: 10,000 rows in a second and 100 MB. The memory is the peak
//! (VmHWM) of the program that users run, at the moment when its whole plan is made and waits in a pipe to be read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use metalgate::cli::validate;
use std::fmt::Write;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const ROWS: u32 = 10_000;
const TIME: Duration = Duration::from_secs(1);
const MEMORY_KB: u64 = 100_000;
/// Each thing is measured so often; the median counts.
const RUNS: usize = 21;

const SPEC: &str = include_str!("../hardware-examples/accepted/worker-groups/cluster.yaml");

/// A cluster that needs every row.
fn spec() -> String {
    let common = SPEC.split("  controlPlane:").next().unwrap();
    let common = common.replace("10.20.0.10", "10.20.255.10\n    podCIDR: 100.64.0.0/10");
    let group = |name, count| format!("    - {{name: {name}, count: {count}, selector: {{type: {name}}}}}\n");
    format!("{common}  controlPlane: {{count: 5, selector: {{type: cp}}}}\n  workers:\n")
        + &group("a", 5000)
        + &group("b", ROWS - 5005)
}

fn hardware() -> String {
    let mut csv = String::from(
        "hostname,bmc_ip,bmc_username,bmc_password,mac,ip_address,netmask,gateway,nameservers,labels,disk\n",
    );
    for row in 0..ROWS {
        let (address, bmc) = (Ipv4Addr::from(0x0a14_0002 + row), Ipv4Addr::from(0x0a15_0002 + row));
        let kind = match row {
            0..5 => "cp",
            5..5005 => "a",
            _ => "b",
        };
        let [.., a, b] = row.to_be_bytes();
        writeln!(
            csv,
            "node-{row},{bmc},admin,secret-{row},52:54:00:00:{a:02x}:{b:02x},{address},255.255.0.0,10.20.0.1,\
             9.9.9.9|1.1.1.1,type={kind}|rack=r{},/dev/disk/by-id/nvme-eui.{row:016x}",
            row / 40
        )
        .unwrap();
    }
    csv
}

/// The median time of `work`.
fn time<T>(mut work: impl FnMut() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            std::hint::black_box(work());
            started.elapsed()
        })
        .collect();
    times.sort();
    times[RUNS / 2]
}

/// What one run of the program takes, start and output included: its time, and its peak memory in KiB.
fn run(spec: &Path, csv: &Path) -> (Duration, u64) {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_metalgate"))
        .args(["create", "cluster", "--dry-run", "-f"])
        .arg(spec)
        .arg("-z")
        .arg(csv)
        .env("XDG_STATE_HOME", spec.parent().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut plan = Vec::new();
    let mut output = child.stdout.take().unwrap();
    output.by_ref().take(1).read_to_end(&mut plan).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    output.read_to_end(&mut plan).unwrap();
    assert!(child.wait().unwrap().success());
    let time = started.elapsed();
    // The pipe held a small part of it, so the program was there when it was looked at.
    assert!(plan.len() > 1 << 20, "{} bytes", plan.len());
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    (time, peak.trim().trim_end_matches(" kB").parse().unwrap())
}

fn main() -> ExitCode {
    let dir = tempfile::tempdir().unwrap();
    let (spec_path, csv_path) = (dir.path().join("cluster.yaml"), dir.path().join("hardware.csv"));
    std::fs::write(&spec_path, spec()).unwrap();
    std::fs::write(&csv_path, hardware()).unwrap();

    let plain = time(|| {
        let mut reader = csv::Reader::from_path(&csv_path).unwrap();
        let rows: Result<Vec<csv::StringRecord>, _> = reader.records().collect();
        let rows = rows.unwrap();
        assert_eq!(rows.len(), ROWS as usize);
        rows
    });
    let ours = time(|| {
        let input = validate::load(&spec_path, &csv_path).unwrap_or_else(|found| panic!("{}", found.render(false)));
        assert_eq!(input.plan.machines.len(), ROWS as usize);
        input
    });
    let (_, memory) = run(&spec_path, &csv_path);
    let program = time(|| run(&spec_path, &csv_path));

    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let size = std::fs::metadata(&csv_path).unwrap().len() as f64 / 1e6;
    println!("{ROWS} rows, {size:.2} MB");
    println!("  plain parse by the csv crate      {:8.1} ms", ms(plain));
    println!("  read, checked and planned         {:8.1} ms   {:.1} times that", ms(ours), ms(ours) / ms(plain));
    println!(
        "  `create cluster --dry-run`, whole {:8.1} ms   {:.1} MB at its peak",
        ms(program),
        memory as f64 * 1.024e-3
    );
    if ours < TIME && program < TIME && memory < MEMORY_KB {
        return ExitCode::SUCCESS;
    }
    println!("that is more than {} ms or {} MB", TIME.as_millis(), MEMORY_KB / 1000);
    ExitCode::FAILURE
}
