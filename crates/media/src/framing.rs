//! Packets on a stream of bytes (RFC 4571), as ICE-TCP carries them.
//!
//! ```text
//! | length, 16 bits | packet | length | packet | ...
//! ```

/// The longest packet that is taken: as long as the longest datagram. Nothing that a peer sends comes
/// near, so a longer one means that the other end speaks something else.
pub const MAX_FRAME_BYTES: usize = 2048;

const LENGTH_BYTES: usize = 2;

/// A frame announced more than [`MAX_FRAME_BYTES`]. The stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes was announced; at most {MAX_FRAME_BYTES} are taken")]
pub struct FrameTooLong(pub usize);

/// Appends a packet with its length.
pub fn put_frame(packet: &[u8], out: &mut Vec<u8>) {
    let len = u16::try_from(packet.len()).expect("a packet fits a datagram");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(packet);
}

/// Takes a stream apart. Holds what came of one frame, so at most [`MAX_FRAME_BYTES`] and the length
/// before them.
#[derive(Debug, Default)]
pub struct Deframer {
    begun: Vec<u8>,
}

impl Deframer {
    /// Takes what arrived, in pieces of any size, and hands over every packet that is whole. Empty
    /// frames are skipped.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut handle: impl FnMut(&mut [u8]),
    ) -> Result<(), FrameTooLong> {
        while !bytes.is_empty() {
            let wanted = self.wanted()?;
            let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.begun.extend_from_slice(part);
            bytes = rest;
            if self.wanted()? == 0 {
                if self.begun.len() > LENGTH_BYTES {
                    handle(&mut self.begun[LENGTH_BYTES..]);
                }
                self.begun.clear();
            }
        }
        Ok(())
    }

    /// Bytes up to the end of the length, and then up to the end of the frame.
    fn wanted(&self) -> Result<usize, FrameTooLong> {
        let Some(length) = self.begun.first_chunk::<LENGTH_BYTES>() else {
            return Ok(LENGTH_BYTES - self.begun.len());
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > MAX_FRAME_BYTES {
            return Err(FrameTooLong(length));
        }
        Ok(LENGTH_BYTES + length - self.begun.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packets() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let packet = prop::collection::vec(any::<u8>(), 1..=300);
        let longest = prop::collection::vec(any::<u8>(), MAX_FRAME_BYTES);
        prop::collection::vec(prop_oneof![9 => packet, 1 => longest], 0..20)
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_packets_are_the_same(
            packets in packets(),
            cuts in prop::collection::vec(1usize..700, 1..60),
        ) {
            let mut stream = Vec::new();
            for packet in &packets {
                put_frame(packet, &mut stream);
                put_frame(&[], &mut stream);
            }
            let (mut deframer, mut received, mut left) = (Deframer::default(), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (part, rest) = left.split_at((*cut).min(left.len()));
                deframer.push(part, |packet| received.push(packet.to_vec())).unwrap();
                prop_assert!(deframer.begun.len() <= LENGTH_BYTES + MAX_FRAME_BYTES);
                left = rest;
            }
            prop_assert_eq!(received, packets);
        }

        #[test]
        fn garbage_ends_the_stream_or_is_packets(
            bytes in prop::collection::vec(any::<u8>(), 0..5000),
            cut in 1usize..100,
        ) {
            let mut deframer = Deframer::default();
            for part in bytes.chunks(cut) {
                let pushed = deframer.push(part, |packet| {
                    assert!(!packet.is_empty() && packet.len() <= MAX_FRAME_BYTES);
                });
                if pushed.is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_frame_over_the_bound_is_refused_at_its_length() {
        let mut deframer = Deframer::default();
        let refused = deframer.push(b"GET / HTTP/1.1\r\n", |_| panic!("this is no packet"));
        assert_eq!(refused, Err(FrameTooLong(usize::from(u16::from_be_bytes(*b"GE")))));
    }
}
