//! How image files are packed, and unpacking those that can be read from front to end.

use crate::spec::ImageFormat;
use std::io::{self, Read};

/// So many bytes of a file's beginning tell how it is packed.
pub const MAGIC_BYTES: usize = 6;

/// How a file with this beginning is packed; a file that looks like none of the formats is taken for raw sectors.
pub fn sniff(beginning: &[u8]) -> ImageFormat {
    match beginning {
        [0x1f, 0x8b, 8, ..] => ImageFormat::Gz,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ImageFormat::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ImageFormat::Zst,
        // A skippable frame may come first (RFC 8878, section 3.1.2).
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => ImageFormat::Zst,
        [b'Q', b'F', b'I', 0xfb, ..] => ImageFormat::Qcow2,
        _ => ImageFormat::Raw,
    }
}

/// Unpacks `packed` while it is read: files of several members, streams or frames to their end. A file that breaks off is
/// an error of kind `UnexpectedEof`, never a short image. QCOW2 is no stream and is `Unsupported`: see [`super::qcow2`].
pub fn unpack<'a>(format: ImageFormat, packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match format {
        ImageFormat::Raw => Box::new(packed),
        ImageFormat::Gz => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        ImageFormat::Xz => Box::new(lzma_rust2::XzReader::new(packed, true)),
        ImageFormat::Zst => {
            let mut decoder = zstd::Decoder::new(packed)?;
            // What `zstd --long=31` and `--ultra -22` write; the default stops at 128 MiB.
            decoder.window_log_max(31)?;
            Box::new(decoder)
        }
        ImageFormat::Qcow2 => return Err(io::Error::new(io::ErrorKind::Unsupported, "QCOW2 is not a stream")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// What `program` writes when it reads `input`.
    fn piped(program: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program[0])
            .args(&program[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success());
        output.stdout
    }

    fn sample() -> Vec<u8> {
        (0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    fn unpacked(format: ImageFormat, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        unpack(format, packed)?.read_to_end(&mut out)?;
        Ok(out)
    }

    const PACKERS: [(ImageFormat, &[&str]); 3] =
        [(ImageFormat::Gz, &["gzip", "-c"]), (ImageFormat::Xz, &["xz", "-c"]), (ImageFormat::Zst, &["zstd", "-qc"])];

    #[test]
    fn what_the_common_tools_pack_is_recognised_and_unpacked_in_one_or_several_parts() {
        let sample = sample();
        for (format, packer) in PACKERS {
            let (first, second) = sample.split_at(400_000);
            let parts = [piped(packer, first), piped(packer, second)].concat();
            assert_eq!(sniff(&parts), format);
            assert!(unpacked(format, &parts).unwrap() == sample, "{format:?}");
        }
        assert_eq!(sniff(&sample), ImageFormat::Raw);
        assert_eq!(sniff(b""), ImageFormat::Raw);
    }

    #[test]
    fn a_file_that_breaks_off_or_is_damaged_is_an_error_and_not_a_short_image() {
        let sample = sample();
        for (format, packer) in PACKERS {
            let packed = piped(packer, &sample);
            for cut in [packed.len() - 1, packed.len() / 2, 20, 3] {
                assert!(unpacked(format, &packed[..cut]).is_err(), "{format:?} cut at {cut}");
            }
            let mut damaged = packed.clone();
            damaged[packed.len() / 2] ^= 0x55;
            assert!(unpacked(format, &damaged).is_err(), "{format:?} damaged");
        }
    }
}
