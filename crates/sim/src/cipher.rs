//! The viewer's end of SRTP: opens what the server protects and protects its own feedback.
//!
//! Written from RFC 7714 apart from the server's, as a second opinion. AES-GCM only.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use media::peer::SessionKeys;
use media::srtp::SrtpProfile;

const SALT_BYTES: usize = 12;
const RTCP_HEADER_BYTES: usize = 8;
const ENCRYPTED: u32 = 1 << 31;

/// RFC 3711 §4.3.2.
#[derive(Clone, Copy)]
enum Label {
    RtpKey = 0,
    RtpSalt = 2,
    RtcpKey = 3,
    RtcpSalt = 5,
}

/// Session key and salt of one direction and purpose.
struct Session {
    key: LessSafeKey,
    salt: [u8; SALT_BYTES],
}

/// The keys of a viewer.
pub(crate) struct ViewerCipher {
    rtp_in: Session,
    rtcp_in: Session,
    rtcp_out: Session,
    next_rtcp_index: u32,
}

impl ViewerCipher {
    /// The material is that of RFC 5764 §4.2: client key, server key, client salt, server salt.
    pub(crate) fn new(keys: &SessionKeys) -> Option<Self> {
        let key_bytes = match keys.profile {
            SrtpProfile::AeadAes256Gcm => 32,
            SrtpProfile::AeadAes128Gcm => 16,
            SrtpProfile::Aes128CmSha1_80 => return None,
        };
        let (both_keys, both_salts) = keys.material.split_at_checked(2 * key_bytes)?;
        let (client_key, server_key) = both_keys.split_at(key_bytes);
        let (client_salt, server_salt) = both_salts.split_at_checked(SALT_BYTES)?;
        Some(Self {
            rtp_in: Session::derive(server_key, server_salt, Label::RtpKey, Label::RtpSalt)?,
            rtcp_in: Session::derive(server_key, server_salt, Label::RtcpKey, Label::RtcpSalt)?,
            rtcp_out: Session::derive(client_key, client_salt, Label::RtcpKey, Label::RtcpSalt)?,
            next_rtcp_index: 1,
        })
    }

    /// The payload of a packet with a 12-byte header, under the packet index that it is taken for.
    pub(crate) fn open_rtp(&self, packet: &[u8], index: u64) -> Option<Vec<u8>> {
        let (header, sealed) = packet.split_at_checked(12)?;
        // RFC 7714 §8.1: two zero bytes, SSRC, roll-over counter, sequence number.
        let mut iv = [0; 12];
        iv[2..6].copy_from_slice(&header[8..12]);
        iv[6..12].copy_from_slice(&index.to_be_bytes()[2..]);
        self.rtp_in.open(iv, header, sealed)
    }

    /// The compound packet inside, with its SRTCP index.
    pub(crate) fn open_rtcp(&self, packet: &[u8]) -> Option<(u32, Vec<u8>)> {
        let (rest, word) = packet.split_last_chunk::<4>()?;
        let (header, sealed) = rest.split_at_checked(RTCP_HEADER_BYTES)?;
        let word = u32::from_be_bytes(*word);
        if word & ENCRYPTED == 0 {
            return None;
        }
        let index = word & !ENCRYPTED;
        let opened =
            self.rtcp_in.open(rtcp_iv(header, index), &associated(header, word), sealed)?;
        Some((index, [header, &opened].concat()))
    }

    pub(crate) fn seal_rtcp(&mut self, compound: &[u8]) -> Vec<u8> {
        let (header, body) = compound.split_at(RTCP_HEADER_BYTES);
        let index = self.next_rtcp_index;
        self.next_rtcp_index += 1;
        let word = ENCRYPTED | index;
        let sealed = self.rtcp_out.seal(rtcp_iv(header, index), &associated(header, word), body);
        [header, &sealed, &word.to_be_bytes()].concat()
    }
}

/// RFC 7714 §9.1: two zero bytes, SSRC, two zero bytes, index.
fn rtcp_iv(header: &[u8], index: u32) -> [u8; 12] {
    let mut iv = [0; 12];
    iv[2..6].copy_from_slice(&header[4..8]);
    iv[8..12].copy_from_slice(&index.to_be_bytes());
    iv
}

/// RFC 7714 §9.2: the header, then the E flag with the index.
fn associated(header: &[u8], word: u32) -> Vec<u8> {
    [header, &word.to_be_bytes()].concat()
}

impl Session {
    fn derive(key: &[u8], salt: &[u8], key_label: Label, salt_label: Label) -> Option<Self> {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        let session_key = keystream(key, salt, key_label, key.len())?;
        let key_of_session = UnboundKey::new(algorithm, &session_key).ok()?;
        let salt = keystream(key, salt, salt_label, SALT_BYTES)?.try_into().ok()?;
        Some(Self { key: LessSafeKey::new(key_of_session), salt })
    }

    fn nonce(&self, mut iv: [u8; 12]) -> Nonce {
        iv.iter_mut().zip(self.salt).for_each(|(byte, salt)| *byte ^= salt);
        Nonce::assume_unique_for_key(iv)
    }

    fn open(&self, iv: [u8; 12], associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut data = sealed.to_vec();
        let len =
            self.key.open_in_place(self.nonce(iv), Aad::from(associated), &mut data).ok()?.len();
        data.truncate(len);
        Some(data)
    }

    fn seal(&self, iv: [u8; 12], associated: &[u8], body: &[u8]) -> Vec<u8> {
        let mut data = body.to_vec();
        self.key
            .seal_in_place_append_tag(self.nonce(iv), Aad::from(associated), &mut data)
            .expect("a feedback packet is far below the cipher's bound");
        data
    }
}

/// The pseudo-random function of RFC 3711 §4.3.3 at a key derivation rate of 0.
fn keystream(key: &[u8], salt: &[u8], label: Label, len: usize) -> Option<Vec<u8>> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    let mut block = [0; 16];
    block[..salt.len()].copy_from_slice(salt);
    block[7] ^= label as u8;
    let mut stream = vec![0; len];
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key).ok()?)
        .ok()?
        .less_safe_encrypt(&mut stream, EncryptionContext::Iv128(block.into()))
        .ok()?;
    Some(stream)
}
