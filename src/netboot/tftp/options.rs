//! Options of a read request: what is granted, and what is told to the client (RFC 2347).

use std::time::Duration;
use tftpd::{OptionType, TransferOption};

/// Larger blocks would be fragmented on Ethernet, and boot ROMs put fragments together badly or not at all.
const LARGEST_BLOCK: u64 = 1468;
/// The crate's own server would buffer whatever product of block and window is asked for; this bounds it to 92 KiB.
const LARGEST_WINDOW: u64 = 64;

/// What a transfer is done with.
#[derive(Clone, Debug, PartialEq)]
pub struct Negotiated {
    /// Bytes in a block (RFC 2348); 512 unless asked for.
    pub block_size: u16,
    /// Blocks between two acknowledgements (RFC 7440); 1 unless asked for.
    pub window: u16,
    /// How long to wait before sending again (RFC 2349).
    pub timeout: Duration,
    /// Options that were asked for and granted, with their values; the OACK.
    pub granted: Vec<(OptionType, u64)>,
}

impl Negotiated {
    /// Grants what makes sense of the options of a request for a file of `size` bytes. One that does not is left out of
    /// the OACK, as RFC 2347 wants it.
    pub fn from_request(wanted: &[TransferOption], size: u64) -> Self {
        let mut this = Self { block_size: 512, window: 1, timeout: Duration::from_secs(1), granted: Vec::new() };
        for TransferOption { option, value } in wanted {
            let granted = match option {
                OptionType::BlockSize if *value >= 8 => {
                    let size = (*value).min(LARGEST_BLOCK);
                    this.block_size = size as u16;
                    (OptionType::BlockSize, size)
                }
                OptionType::WindowSize if *value >= 1 => {
                    let window = (*value).min(LARGEST_WINDOW);
                    this.window = window as u16;
                    (OptionType::WindowSize, window)
                }
                OptionType::Timeout if (1..=255).contains(value) => {
                    this.timeout = Duration::from_secs(*value);
                    (OptionType::Timeout, *value)
                }
                OptionType::TransferSize => (OptionType::TransferSize, size),
                _ => continue,
            };
            if !this.granted.iter().any(|(option, _)| *option == granted.0) {
                this.granted.push(granted);
            }
        }
        this
    }

    /// The OACK's options; empty if the transfer begins with its first block.
    pub fn acknowledgement(&self) -> Vec<TransferOption> {
        self.granted.iter().map(|(option, value)| TransferOption { option: *option, value: *value }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(wanted: &[(OptionType, u64)]) -> Negotiated {
        let wanted: Vec<_> =
            wanted.iter().map(|(option, value)| TransferOption { option: *option, value: *value }).collect();
        Negotiated::from_request(&wanted, 1_000_000)
    }

    #[test]
    fn sizes_are_capped_and_nonsense_is_left_out() {
        let all = negotiate(&[
            (OptionType::BlockSize, 65_464),
            (OptionType::WindowSize, 65_535),
            (OptionType::TransferSize, 0),
            (OptionType::Timeout, 3),
        ]);
        assert_eq!((all.block_size, all.window, all.timeout), (1468, 64, Duration::from_secs(3)));
        assert_eq!(all.granted.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [1468, 64, 1_000_000, 3]);
        let none = negotiate(&[(OptionType::BlockSize, 7), (OptionType::WindowSize, 0), (OptionType::Timeout, 256)]);
        assert_eq!(none, negotiate(&[]));
        assert_eq!((none.block_size, none.window), (512, 1));
    }
}
