//! What a lite agent needs of STUN (RFC 8489): whom a check is for, whether it is authentic, and the
//! answers to it.
//!
//! Whether a check is answered at all is not decided here but in `crate::ice`.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

/// RFC 8489 §5: type, length, magic cookie, transaction id.
const HEADER_LEN: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const BINDING_ERROR: [u8; 2] = [0x01, 0x11];

const ATTR_USERNAME: u16 = 0x0006;
const ATTR_MESSAGE_INTEGRITY: u16 = 0x0008;
const ATTR_ERROR_CODE: u16 = 0x0009;
const ATTR_XOR_MAPPED_ADDRESS: u16 = 0x0020;
const ATTR_USE_CANDIDATE: u16 = 0x0025;
const ATTR_FINGERPRINT: u16 = 0x8028;
const ATTR_PRIORITY: u16 = 0x0024;
const ATTR_ICE_CONTROLLED: u16 = 0x8029;
const ATTR_ICE_CONTROLLING: u16 = 0x802a;

/// Of a peer-reflexive candidate that would come of a check: type preference 110 (RFC 8445 §5.1.2.2).
const CHECK_PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

/// ERROR-CODE 487 with its reason (RFC 8489 §14.8, RFC 8445 §7.3.1.1), padded to four bytes.
const ROLE_CONFLICT: &[u8] = b"\0\0\x04\x57Role Conflict\0\0\0";
const ROLE_CONFLICT_LEN: u16 = 17;

const INTEGRITY_LEN: usize = 20;
/// Attribute header and value of MESSAGE-INTEGRITY.
const INTEGRITY_ATTR_LEN: usize = 4 + INTEGRITY_LEN;
/// RFC 8489 §14.7: the CRC is XORed with "STUN".
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// The transaction id of a request and its answer (RFC 8489 §5): 96 bits that the client picks at
/// random for each request.
pub type TransactionId = [u8; 12];

/// A binding request, read just far enough to route and to authenticate it.
#[derive(Debug, Clone, Copy)]
pub struct BindingRequest<'a> {
    packet: &'a [u8],
    username: &'a str,
    /// Where MESSAGE-INTEGRITY begins.
    integrity_at: usize,
    /// USE-CANDIDATE is present (RFC 8445 §7.1.2): the peer chose this pair.
    pub nominates: bool,
    /// ICE-CONTROLLED is present: the peer takes us for the controlling agent (RFC 8445 §7.1.3).
    pub is_controlled: bool,
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
        let (mut nominates, mut is_controlled) = (false, false);
        let mut at = HEADER_LEN;
        while at < packet.len() {
            let (kind, value, next) = attribute(packet, at)?;
            match kind {
                ATTR_USERNAME => username = std::str::from_utf8(value).ok(),
                ATTR_USE_CANDIDATE => nominates = true,
                ATTR_ICE_CONTROLLED => is_controlled = true,
                // What follows the integrity attribute is not covered by it, so it is not read.
                ATTR_MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => {
                    let username = username?;
                    let integrity_at = at;
                    return Some(Self { packet, username, integrity_at, nominates, is_controlled });
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

    /// Names the transaction; a repeated request has the same.
    pub fn transaction(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.packet[8..HEADER_LEN]);
        id
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
        signed(packet, password)
    }

    /// The answer to a request that arrived from `source` (RFC 8489 §6.3.1.1).
    pub fn success(&self, source: SocketAddr, password: &str) -> Vec<u8> {
        let mut packet = self.answer(BINDING_SUCCESS);
        let mask = &self.packet[4..HEADER_LEN];
        let port = source.port() ^ u16::from_be_bytes([MAGIC_COOKIE[0], MAGIC_COOKIE[1]]);
        let (family, address) = match source.ip() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let len = 4 + address.len() as u16;
        packet.extend_from_slice(&ATTR_XOR_MAPPED_ADDRESS.to_be_bytes());
        packet.extend_from_slice(&len.to_be_bytes());
        packet.extend_from_slice(&[0, family]);
        packet.extend_from_slice(&port.to_be_bytes());
        packet.extend(address.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        signed(packet, password)
    }

    /// The answer to a request of an agent that believes to be controlled: a lite agent is that
    /// itself, so the other one switches (RFC 8445 §7.3.1.1).
    pub fn role_conflict(&self, password: &str) -> Vec<u8> {
        let mut packet = self.answer(BINDING_ERROR);
        packet.extend_from_slice(&ATTR_ERROR_CODE.to_be_bytes());
        packet.extend_from_slice(&ROLE_CONFLICT_LEN.to_be_bytes());
        packet.extend_from_slice(ROLE_CONFLICT);
        signed(packet, password)
    }

    /// The header of an answer, its length not yet written.
    fn answer(&self, kind: [u8; 2]) -> Vec<u8> {
        let mut packet = Vec::with_capacity(80);
        packet.extend_from_slice(&kind);
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(&self.packet[4..HEADER_LEN]);
        packet
    }
}

/// A check as a controlling agent sends it, without nominating (RFC 8445 §7.1): for tools that try whether
/// an agent is reached. `username` is `<its user fragment>:<ours>`, `password` is its own.
pub fn binding_request(transaction: TransactionId, username: &str, password: &str) -> Vec<u8> {
    let mut packet = Vec::with_capacity(120);
    packet.extend_from_slice(&BINDING_REQUEST);
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&MAGIC_COOKIE);
    packet.extend_from_slice(&transaction);
    // A user fragment has at most 256 characters (RFC 8839 §5.4).
    let username = &username.as_bytes()[..username.len().min(2 * 256 + 1)];
    append(&mut packet, ATTR_USERNAME, username);
    append(&mut packet, ATTR_PRIORITY, &CHECK_PRIORITY.to_be_bytes());
    append(&mut packet, ATTR_ICE_CONTROLLING, &transaction[..8]);
    signed(packet, password)
}

/// Whether a packet is the success response to the request of this transaction.
pub fn is_success_of(packet: &[u8], transaction: TransactionId) -> bool {
    packet.get(..2) == Some(&BINDING_SUCCESS)
        && packet.get(4..8) == Some(&MAGIC_COOKIE)
        && packet.get(8..HEADER_LEN) == Some(&transaction)
}

/// An attribute with its padding (RFC 8489 §14).
fn append(packet: &mut Vec<u8>, kind: u16, value: &[u8]) {
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&(value.len() as u16).to_be_bytes());
    packet.extend_from_slice(value);
    packet.resize(packet.len().next_multiple_of(4), 0);
}

/// The message with MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489 §14.5, §14.7).
fn signed(mut packet: Vec<u8>, password: &str) -> Vec<u8> {
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
        bytes(SAMPLE)
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
    fn a_request_of_ours_is_authentic_and_its_answer_is_known() {
        let transaction = [7; 12];
        let packet = binding_request(transaction, "evtj:h6vYz", PASSWORD);
        let request = BindingRequest::parse(&packet).unwrap();
        assert!(request.is_authentic(PASSWORD) && !request.is_authentic("another"));
        assert_eq!(request.local_ufrag(), Some("evtj"));
        assert!(!request.nominates && !request.is_controlled);
        let answer = request.success("192.0.2.1:32853".parse().unwrap(), PASSWORD);
        assert!(is_success_of(&answer, transaction));
        assert!(!is_success_of(&answer, [8; 12]) && !is_success_of(&answer[..10], transaction));
        assert!(!is_success_of(&request.role_conflict(PASSWORD), transaction));
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

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// RFC 5769 §2.2 and §2.3: the answers to the sample request from 192.0.2.1:32853 and from
    /// 2001:db8:1234:5678:11:2233:4455:6677 port 32853, without their SOFTWARE.
    #[test]
    fn the_answer_carries_the_address_as_the_samples_do() {
        let packet = sample();
        let request = BindingRequest::parse(&packet).unwrap();
        let answers = [
            ("192.0.2.1:32853", "0020 0008 0001a147e112a643"),
            (
                "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
                "0020 0014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9",
            ),
        ];
        for (source, attribute) in answers {
            let answer = request.success(source.parse().unwrap(), PASSWORD);
            let attribute = bytes(attribute);
            assert_eq!(answer[..2], [1, 1]);
            assert_eq!(answer[4..20], packet[4..20], "cookie and transaction");
            assert_eq!(answer[20..20 + attribute.len()], attribute);
            assert_eq!(usize::from(answer[3]), answer.len() - 20);
            assert_signed(&answer);
        }
    }

    #[test]
    fn a_role_conflict_is_answered_with_487() {
        let packet = sample();
        let request = BindingRequest::parse(&packet).unwrap();
        assert!(request.is_controlled);
        let answer = request.role_conflict(PASSWORD);
        assert_eq!(answer[..2], [1, 0x11]);
        assert_eq!(answer[20..28], [0, 9, 0, 17, 0, 0, 4, 87]);
        assert_eq!(&answer[28..41], b"Role Conflict");
        assert_signed(&answer);
    }

    /// Integrity and fingerprint are the last two attributes, and both are right.
    fn assert_signed(message: &[u8]) {
        let (before, fingerprint) = message.split_at(message.len() - 8);
        let crc = (crc32(before) ^ FINGERPRINT_XOR).to_be_bytes();
        assert_eq!(fingerprint, [[0x80, 0x28, 0, 4], crc].concat());
        let (before, integrity) = before.split_at(before.len() - INTEGRITY_ATTR_LEN);
        let tag = hmac::sign(&integrity_key(PASSWORD), &covered(before));
        assert_eq!(&integrity[4..], tag.as_ref());
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
