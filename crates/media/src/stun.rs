//! What we need to know of STUN (RFC 8489) before ICE sees a packet: whom it is for, whether it is
//! authentic, and how to let a lite agent proceed on the first authentic check.
//!
//! Connectivity checks themselves are answered by the ICE agent in [`crate::peer`].

use aws_lc_rs::hmac;

/// RFC 8489 §5: type, length, magic cookie, transaction id.
const HEADER_LEN: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];

const ATTR_USERNAME: u16 = 0x0006;
const ATTR_MESSAGE_INTEGRITY: u16 = 0x0008;
const ATTR_USE_CANDIDATE: u16 = 0x0025;
const ATTR_FINGERPRINT: u16 = 0x8028;

const INTEGRITY_LEN: usize = 20;
/// Attribute header and value of MESSAGE-INTEGRITY.
const INTEGRITY_ATTR_LEN: usize = 4 + INTEGRITY_LEN;
/// RFC 8489 §14.7: the CRC is XORed with "STUN".
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// A binding request, read just far enough to route and to authenticate it.
#[derive(Debug, Clone, Copy)]
pub struct BindingRequest<'a> {
    packet: &'a [u8],
    username: &'a str,
    /// Where MESSAGE-INTEGRITY begins.
    integrity_at: usize,
    /// USE-CANDIDATE is present (RFC 8445 §7.1.2): the peer chose this pair.
    pub nominates: bool,
}

impl<'a> BindingRequest<'a> {
    /// Reads a binding request that carries USERNAME and MESSAGE-INTEGRITY; anything else is `None`.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let header = packet.get(..HEADER_LEN)?;
        let claimed = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let well_formed = header[..2] == BINDING_REQUEST
            && header[4..8] == MAGIC_COOKIE
            && claimed.is_multiple_of(4)
            && HEADER_LEN + claimed == packet.len();
        if !well_formed {
            return None;
        }
        let mut username = None;
        let mut nominates = false;
        let mut at = HEADER_LEN;
        while at < packet.len() {
            let (kind, value, next) = attribute(packet, at)?;
            match kind {
                ATTR_USERNAME => username = std::str::from_utf8(value).ok(),
                ATTR_USE_CANDIDATE => nominates = true,
                // What follows the integrity attribute is not covered by it, so it is not read.
                ATTR_MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => {
                    return Some(Self { packet, username: username?, integrity_at: at, nominates });
                }
                _ => {}
            }
            at = next;
        }
        None
    }

    /// The part of USERNAME before the colon: the user fragment of the agent that is addressed
    /// (RFC 8445 §7.2.2).
    pub fn local_ufrag(&self) -> Option<&'a str> {
        self.username.split_once(':').map(|(local, _)| local)
    }

    /// Whether MESSAGE-INTEGRITY was made with this password (RFC 8489 §14.5).
    pub fn is_authentic(&self, password: &str) -> bool {
        let key = integrity_key(password);
        let signed = covered(&self.packet[..self.integrity_at]);
        let tag = &self.packet[self.integrity_at + 4..self.integrity_at + INTEGRITY_ATTR_LEN];
        hmac::verify(&key, &signed, tag).is_ok()
    }

    /// The same request with USE-CANDIDATE, signed again.
    ///
    /// A lite agent with a single component may use any pair that passed a check; the full agent
    /// would nominate it some round trips later. Only for requests that proved authentic.
    pub fn nominated(&self, password: &str) -> Vec<u8> {
        let mut packet = self.packet[..self.integrity_at].to_vec();
        packet.extend_from_slice(&ATTR_USE_CANDIDATE.to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        let tag = hmac::sign(&integrity_key(password), &covered(&packet));
        packet.extend_from_slice(&ATTR_MESSAGE_INTEGRITY.to_be_bytes());
        packet.extend_from_slice(&[0, INTEGRITY_LEN as u8]);
        packet.extend_from_slice(tag.as_ref());
        set_length(&mut packet, 8);
        let fingerprint = crc32(&packet) ^ FINGERPRINT_XOR;
        packet.extend_from_slice(&ATTR_FINGERPRINT.to_be_bytes());
        packet.extend_from_slice(&[0, 4]);
        packet.extend_from_slice(&fingerprint.to_be_bytes());
        packet
    }
}

/// The attribute at `at`: its type, its value, and where the next one begins.
fn attribute(packet: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let head = packet.get(at..at + 4)?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let value = packet.get(at + 4..at + 4 + len)?;
    Some((kind, value, at + 4 + len.next_multiple_of(4)))
}

fn integrity_key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// The bytes that MESSAGE-INTEGRITY covers: everything before it, with the header's length field
/// counting up to its end (RFC 8489 §14.5).
fn covered(before_integrity: &[u8]) -> Vec<u8> {
    let mut signed = before_integrity.to_vec();
    set_length(&mut signed, INTEGRITY_ATTR_LEN);
    signed
}

/// Writes the length field as if `more` bytes followed. Packets come in datagrams, so it fits.
fn set_length(packet: &mut [u8], more: usize) {
    let len = (packet.len() - HEADER_LEN + more) as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
}

/// CRC-32 of ITU-T V.42, bit by bit: a packet a handshake is not worth a table.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 5769 §2.1: the sample request, password VOkJxbRl1RmTxUk/WvJxBt.
    const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420\
        636c69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020\
        000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    fn sample() -> Vec<u8> {
        let digits: Vec<u8> = SAMPLE.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_sample_of_rfc_5769_is_authentic() {
        let packet = sample();
        let request = BindingRequest::parse(&packet).unwrap();
        assert_eq!(request.local_ufrag(), Some("evtj"));
        assert!(request.is_authentic(PASSWORD));
        assert!(!request.is_authentic("another"));
        assert!(!request.nominates);
    }

    #[test]
    fn a_nominated_request_is_authentic_and_nominates() {
        let packet = sample();
        let nominated = BindingRequest::parse(&packet).unwrap().nominated(PASSWORD);
        let request = BindingRequest::parse(&nominated).unwrap();
        assert!(request.nominates);
        assert!(request.is_authentic(PASSWORD));
        assert_eq!(request.local_ufrag(), Some("evtj"));
    }

    #[test]
    fn the_fingerprint_is_that_of_the_sample() {
        let packet = sample();
        let expected = u32::from_be_bytes(packet[packet.len() - 4..].try_into().unwrap());
        assert_eq!(crc32(&packet[..packet.len() - 8]) ^ FINGERPRINT_XOR, expected);
    }

    #[test]
    fn a_flipped_bit_is_not_authentic() {
        for bit in 0..(sample().len() - 8) * 8 {
            let mut packet = sample();
            packet[bit / 8] ^= 1 << (bit % 8);
            let authentic = BindingRequest::parse(&packet)
                .is_some_and(|request| request.is_authentic(PASSWORD));
            assert!(!authentic, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BindingRequest::parse(&packet);
            if packet.len() >= HEADER_LEN {
                packet[..2].copy_from_slice(&BINDING_REQUEST);
                packet[4..8].copy_from_slice(&MAGIC_COOKIE);
                let len = ((packet.len() - HEADER_LEN) as u16).to_be_bytes();
                packet[2..4].copy_from_slice(&len);
                let _ = BindingRequest::parse(&packet).map(|request| request.is_authentic("x"));
            }
        }
    }
}
