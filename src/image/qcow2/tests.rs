//! Against files that QEMU writes, and files that nobody should.

use super::*;
use std::fs;
use std::path::Path;
use std::process::Command;

const MIB: usize = 1 << 20;

fn qemu_img(dir: &Path, args: &[&str]) {
    let output = Command::new("qemu-img").current_dir(dir).args(args).output().expect("qemu-img");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A disk with an odd size, holes, zeros, data that packs well and data that does not.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 5 * MIB + 1536];
    let noise = |n: usize| (n as u32).wrapping_mul(2_654_435_761).rotate_left(n as u32 % 31) as u8;
    (0..700_000).for_each(|n| disk[n] = noise(n));
    (2 * MIB..2 * MIB + 300_000).for_each(|n| disk[n] = (n / 1000) as u8);
    disk[4 * MIB + 70_000] = 1;
    (5 * MIB..5 * MIB + 1536).for_each(|n| disk[n] = noise(n));
    disk
}

fn map(file: &[u8]) -> Result<Map, Qcow2Error> {
    let part = |range: Range<u64>| file[range.start as usize..range.end as usize].to_vec();
    let beginning = file[..HEADER_BYTES].to_vec();
    let header = Header::parse(&beginning)?;
    let l1 = part(header.l1_table());
    let l2 = header.l2_tables(&l1).into_iter().map(|(guest, range)| (guest, range.start, part(range))).collect();
    Map::new(&header, beginning, l1, l2)
}

#[derive(Debug)]
struct Failed(String);

impl From<Qcow2Error> for Failed {
    fn from(error: Qcow2Error) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The disk that comes out; every byte of it must be written or zeroed exactly once.
fn unpacked(map: &Map, file: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut disk = vec![None; map.virtual_bytes as usize];
    let mut set = |offset: usize, bytes: &[u8]| {
        for (place, byte) in disk[offset..offset + bytes.len()].iter_mut().zip(bytes) {
            assert!(place.replace(*byte).is_none(), "twice at {offset}");
        }
    };
    for range in map.zeros() {
        set(range.start as usize, &vec![0; (range.end - range.start) as usize]);
    }
    map.read(file, |offset, bytes| {
        set(offset as usize, bytes);
        Ok::<_, Failed>(())
    })?;
    Ok(disk.into_iter().map(|byte| byte.expect("a byte that nobody set")).collect())
}

#[test]
fn what_qemu_writes_is_read_back_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk();
    fs::write(dir.path().join("raw"), &disk).unwrap();
    for options in [
        &["-o", "compat=0.10"][..],
        &["-o", "compat=1.1"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=full"],
        &["-c"],
        &["-c", "-o", "compat=0.10,cluster_size=4k"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
        &["-S", "0"],
    ] {
        qemu_img(dir.path(), &[&["convert", "-f", "raw", "-O", "qcow2"], options, &["raw", "qcow2"]].concat());
        let file = fs::read(dir.path().join("qcow2")).unwrap();
        assert!(unpacked(&map(&file).unwrap(), &file).unwrap() == disk, "{options:?}");
    }
}

#[test]
fn a_file_that_was_written_to_in_any_order_is_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let io = |commands: &[&str]| {
        let mut program = Command::new("qemu-io");
        program.args(commands.iter().flat_map(|command| ["-c", command]));
        assert!(program.arg(dir.path().join("qcow2")).output().expect("qemu-io").status.success());
    };
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "qcow2", "8M"]);
    io(&["write -P 1 7M 1M", "write -P 2 0 1000k", "write -P 3 4M 64k", "write -z 4M 32k", "discard 7M 512k"]);
    // What a snapshot keeps is in the file, but is not the disk.
    qemu_img(dir.path(), &["snapshot", "-c", "old", "qcow2"]);
    io(&["write -P 4 6M 3000", "write -P 5 0 12k"]);
    qemu_img(dir.path(), &["convert", "-O", "raw", "qcow2", "raw"]);
    let file = fs::read(dir.path().join("qcow2")).unwrap();
    assert!(unpacked(&map(&file).unwrap(), &file).unwrap() == fs::read(dir.path().join("raw")).unwrap());
}

#[test]
fn what_needs_more_than_the_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "base", "1M"]);
    for (options, word) in [
        (&["-b", "base", "-F", "qcow2"][..], "backing file"),
        (&["-o", "data_file=other"], "another file"),
        (&["-o", "extended_l2=on"], "subclusters"),
        (&["--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s"], "encrypted"),
    ] {
        qemu_img(dir.path(), &[&["create", "-q", "-f", "qcow2"], options, &["qcow2", "1M"]].concat());
        let error = map(&fs::read(dir.path().join("qcow2")).unwrap()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(matches!(map(&[0; 200]), Err(Qcow2Error::NotQcow2)));
    let mut old = fs::read(dir.path().join("base")).unwrap();
    old[7] = 1;
    assert!(matches!(map(&old), Err(Qcow2Error::NotQcow2)));
}

#[test]
fn tables_that_change_or_make_no_sense_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("raw"), disk()).unwrap();
    qemu_img(dir.path(), &["convert", "-f", "raw", "-O", "qcow2", "-c", "raw", "qcow2"]);
    let file = fs::read(dir.path().join("qcow2")).unwrap();
    let good = map(&file).unwrap();
    let header = Header::parse(&file).unwrap();
    let l1 = header.l1_table();
    let table = header.l2_tables(&file[l1.start as usize..l1.end as usize])[0].1.start as usize;

    let mut changed = file.clone();
    changed[table + 7] ^= 1;
    assert!(unpacked(&good, &changed).unwrap_err().0.contains("changed while it was read"));
    let mut damaged = file.clone();
    let packed = good.pieces.iter().find(|piece| piece.content == Content::Packed).unwrap().at as usize;
    damaged[packed..packed + 4].fill(0xff);
    assert!(unpacked(&good, &damaged).unwrap_err().0.contains("cannot be unpacked"));
    let mut crooked = file.clone();
    crooked[table..table + 8].copy_from_slice(&(4096u64 + 512).to_be_bytes());
    assert!(matches!(map(&crooked), Err(Qcow2Error::Damaged(_))));
    for (at, value) in [(20, 5u8), (20, 255), (36, 255), (40, 255), (24, 255)] {
        let mut header = file.clone();
        header[at] = value;
        header[at + 3] = value;
        assert!(Header::parse(&header[..HEADER_BYTES]).is_err(), "byte {at}");
    }
}
