//! One direction's session keys for RTP or for RTCP, and the seal and open of both transforms.

use aws_lc_rs::cipher::EncryptingKey;
use aws_lc_rs::{constant_time, hmac};

use super::keys::{Master, Purpose, SessionKey, apply_keystream, counter_mode_key};
use super::{GcmBackend, RTCP_HEADER_BYTES, SrtpError, SrtpProfile};

/// Bytes of an AES-GCM tag (RFC 7714 §13.2).
const GCM_TAG_BYTES: usize = 16;

/// Bytes that HMAC-SHA1-80 keeps of its output (RFC 3711 §5.2).
const CM_TAG_BYTES: usize = 10;

/// Bytes of the E flag and the SRTCP index.
const INDEX_WORD_BYTES: usize = 4;

/// The E flag above the 31-bit SRTCP index: the packet is encrypted (RFC 3711 §3.4).
const ENCRYPTED: u32 = 1 << 31;

/// What an SRTCP packet says of itself before anything is authenticated.
#[derive(Debug, Clone, Copy)]
pub(super) struct RtcpTrailer {
    /// The sender's SSRC, from the first header.
    pub(super) ssrc: u32,
    /// 31 bits.
    pub(super) index: u32,
    /// E flag and index as they stand on the wire.
    word: u32,
}

/// The transform of a profile with its session keys.
pub(super) enum Cipher {
    /// AEAD_AES_128_GCM and AEAD_AES_256_GCM.
    Gcm(GcmCipher),
    /// AES128_CM_HMAC_SHA1_80. Boxed, as its key schedules take 2 KB.
    Cm(Box<CmCipher>),
}

impl Cipher {
    /// Derives the session keys of one purpose.
    pub(super) fn derive(
        profile: SrtpProfile,
        master: &Master<'_>,
        purpose: Purpose,
        backend: GcmBackend,
    ) -> Result<Self, SrtpError> {
        match profile {
            SrtpProfile::AeadAes256Gcm => {
                let key: [u8; 32] = master.derive(purpose, SessionKey::Cipher)?;
                Self::gcm(&key, master.derive(purpose, SessionKey::Salt)?, backend)
            }
            SrtpProfile::AeadAes128Gcm => {
                let key: [u8; 16] = master.derive(purpose, SessionKey::Cipher)?;
                Self::gcm(&key, master.derive(purpose, SessionKey::Salt)?, backend)
            }
            SrtpProfile::Aes128CmSha1_80 => Self::cm(
                master.derive(purpose, SessionKey::Cipher)?,
                master.derive(purpose, SessionKey::Authentication)?,
                master.derive(purpose, SessionKey::Salt)?,
            ),
        }
    }

    /// From session keys: a key of 16 or 32 bytes.
    pub(super) fn gcm(key: &[u8], salt: [u8; 12], backend: GcmBackend) -> Result<Self, SrtpError> {
        let key = GcmKey::new(key, backend)?;
        let mut wide = [0; 16];
        wide[4..].copy_from_slice(&salt);
        Ok(Self::Gcm(GcmCipher { key, salt: u128::from_be_bytes(wide) }))
    }

    /// From session keys.
    pub(super) fn cm(
        key: [u8; 16],
        authentication: [u8; 20],
        salt: [u8; 14],
    ) -> Result<Self, SrtpError> {
        let mut wide = [0; 16];
        wide[..14].copy_from_slice(&salt);
        Ok(Self::Cm(Box::new(CmCipher {
            key: counter_mode_key(&key)?,
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &authentication),
            salt: u128::from_be_bytes(wide),
        })))
    }

    /// Bytes of the authentication tag.
    pub(super) fn tag_len(&self) -> usize {
        match self {
            Self::Gcm(_) => GCM_TAG_BYTES,
            Self::Cm(_) => CM_TAG_BYTES,
        }
    }

    /// Appends header, ciphertext of the payload's parts, and tag. On an error `out` may have grown.
    pub(super) fn seal_rtp(
        &self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        payload: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        let start = out.len();
        out.extend_from_slice(header);
        let body = out.len();
        for part in payload {
            out.extend_from_slice(part);
        }
        match self {
            Self::Gcm(cipher) => cipher.key.seal(cipher.nonce(ssrc, index), header, body, out),
            Self::Cm(cipher) => {
                apply_keystream(&cipher.key, cipher.iv(ssrc, index), &mut out[body..])?;
                // RFC 3711 §4.2: the tag covers the roll-over counter, which is not sent.
                let rollover_counter = ((index >> 16) as u32).to_be_bytes();
                let tag = cipher.tag(&out[start..], &rollover_counter);
                out.extend_from_slice(&tag);
                Ok(())
            }
        }
    }

    /// Appends the encrypted and tagged packet. On an error `out` may have grown.
    pub(super) fn seal_rtcp(
        &self,
        index: u32,
        header: &[u8; RTCP_HEADER_BYTES],
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        let ssrc = rtcp_ssrc(header);
        let word = (ENCRYPTED | index).to_be_bytes();
        let start = out.len();
        out.extend_from_slice(header);
        let clear = out.len();
        out.extend_from_slice(body);
        match self {
            Self::Gcm(cipher) => {
                let nonce = cipher.nonce(ssrc, index.into());
                cipher.key.seal(nonce, &rtcp_associated_data(header, word), clear, out)?;
                out.extend_from_slice(&word);
            }
            Self::Cm(cipher) => {
                apply_keystream(&cipher.key, cipher.iv(ssrc, index.into()), &mut out[clear..])?;
                out.extend_from_slice(&word);
                let tag = cipher.tag(&out[start..], &[]);
                out.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Authenticates and decrypts an RTP packet in place, whose header has `header` bytes. Returns
    /// where its payload ends.
    pub(super) fn open_rtp(
        &self,
        ssrc: u32,
        index: u64,
        header: usize,
        packet: &mut [u8],
    ) -> Result<usize, SrtpError> {
        let too_short = SrtpError::NotAuthentic;
        let end = packet.len().checked_sub(self.tag_len()).filter(|end| *end >= header);
        let end = end.ok_or(too_short)?;
        match self {
            Self::Gcm(cipher) => {
                let (header, sealed) = packet.split_at_mut(header);
                cipher.key.open(cipher.nonce(ssrc, index), header, sealed)?;
            }
            Self::Cm(cipher) => {
                let rollover_counter = ((index >> 16) as u32).to_be_bytes();
                let (signed, tag) = packet.split_at_mut(end);
                let expected = cipher.tag(signed, &rollover_counter);
                constant_time::verify_slices_are_equal(&expected, tag).map_err(|_| too_short)?;
                apply_keystream(&cipher.key, cipher.iv(ssrc, index), &mut signed[header..])?;
            }
        }
        Ok(end)
    }

    /// Reads what an SRTCP packet claims; `None` if it is too short to be one.
    pub(super) fn rtcp_trailer(&self, packet: &[u8]) -> Option<RtcpTrailer> {
        let header = packet.first_chunk::<RTCP_HEADER_BYTES>()?;
        if packet.len() < RTCP_HEADER_BYTES + INDEX_WORD_BYTES + self.tag_len() {
            return None;
        }
        let before_word = match self {
            Self::Gcm(_) => packet,
            Self::Cm(_) => &packet[..packet.len() - CM_TAG_BYTES],
        };
        let word = u32::from_be_bytes(*before_word.last_chunk::<INDEX_WORD_BYTES>()?);
        Some(RtcpTrailer { ssrc: rtcp_ssrc(header), index: word & !ENCRYPTED, word })
    }

    /// Authenticates and decrypts in place the packet that `trailer` was read from. Returns the
    /// length of the compound packet at its start.
    pub(super) fn open_rtcp(
        &self,
        trailer: &RtcpTrailer,
        packet: &mut [u8],
    ) -> Result<usize, SrtpError> {
        match self {
            Self::Gcm(cipher) => cipher.open_rtcp(trailer, packet),
            Self::Cm(cipher) => cipher.open_rtcp(trailer, packet),
        }
    }
}

fn rtcp_ssrc(header: &[u8; RTCP_HEADER_BYTES]) -> u32 {
    u32::from_be_bytes([header[4], header[5], header[6], header[7]])
}

/// What AES-GCM authenticates of an encrypted SRTCP packet besides the ciphertext (RFC 7714 §9.2).
fn rtcp_associated_data(
    header: &[u8; RTCP_HEADER_BYTES],
    word: [u8; INDEX_WORD_BYTES],
) -> [u8; RTCP_HEADER_BYTES + INDEX_WORD_BYTES] {
    let mut data = [0; RTCP_HEADER_BYTES + INDEX_WORD_BYTES];
    data[..RTCP_HEADER_BYTES].copy_from_slice(header);
    data[RTCP_HEADER_BYTES..].copy_from_slice(&word);
    data
}

pub(super) struct GcmCipher {
    key: GcmKey,
    /// The session salt in the lower 96 bits.
    salt: u128,
}

impl GcmCipher {
    /// RFC 7714 §8.1 and §9.1; the 31-bit SRTCP index stands where an RTP index has its lower bits.
    ///
    /// ```text
    /// | 0 (16) | SSRC (32) | index (48) |  XOR salt (96)
    /// ```
    fn nonce(&self, ssrc: u32, index: u64) -> [u8; 12] {
        let value = self.salt ^ (u128::from(ssrc) << 48) ^ u128::from(index);
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&value.to_be_bytes()[4..]);
        nonce
    }

    fn open_rtcp(&self, trailer: &RtcpTrailer, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let nonce = self.nonce(trailer.ssrc, trailer.index.into());
        let tagged = packet.len().checked_sub(INDEX_WORD_BYTES).ok_or(SrtpError::NotAuthentic)?;
        let clear = tagged.checked_sub(GCM_TAG_BYTES).ok_or(SrtpError::NotAuthentic)?;
        let word = trailer.word.to_be_bytes();
        if trailer.word & ENCRYPTED == 0 {
            // RFC 7714 §9.3: all of it is associated data, with the index word behind. That word
            // takes the place of the tag, so that no second buffer is needed.
            let mut tag = [0; GCM_TAG_BYTES];
            tag.copy_from_slice(&packet[clear..tagged]);
            packet[clear..clear + INDEX_WORD_BYTES].copy_from_slice(&word);
            self.key.open(nonce, &packet[..clear + INDEX_WORD_BYTES], &mut tag)?;
            return Ok(clear);
        }
        let Some((header, sealed)) = packet[..tagged].split_first_chunk_mut() else {
            return Err(SrtpError::NotAuthentic);
        };
        self.key.open(nonce, &rtcp_associated_data(header, word), sealed)?;
        Ok(clear)
    }
}

/// An AES-GCM key in one of the two libraries; which one is faster depends on the processor.
enum GcmKey {
    /// Boxed, as it holds its key schedule; the other one has it on the heap by itself.
    Ring(Box<ring::aead::LessSafeKey>),
    AwsLc(aws_lc_rs::aead::LessSafeKey),
}

impl GcmKey {
    fn new(key: &[u8], backend: GcmBackend) -> Result<Self, SrtpError> {
        match backend {
            GcmBackend::Ring => {
                use ring::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
                let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
                let key = UnboundKey::new(algorithm, key).map_err(|_| SrtpError::Cipher)?;
                Ok(Self::Ring(Box::new(LessSafeKey::new(key))))
            }
            GcmBackend::AwsLc => {
                use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
                let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
                let key = UnboundKey::new(algorithm, key).map_err(|_| SrtpError::Cipher)?;
                Ok(Self::AwsLc(LessSafeKey::new(key)))
            }
        }
    }

    /// Encrypts `out` from `body` on and appends the tag.
    fn seal(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        body: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        match self {
            Self::Ring(key) => {
                use ring::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(associated), &mut out[body..])
                    .map_err(|_| SrtpError::Cipher)?;
                out.extend_from_slice(tag.as_ref());
            }
            Self::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(associated), &mut out[body..])
                    .map_err(|_| SrtpError::Cipher)?;
                out.extend_from_slice(tag.as_ref());
            }
        }
        Ok(())
    }

    /// Decrypts ciphertext and tag in place; the plaintext stands at the start then.
    fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &mut [u8]) -> Result<(), SrtpError> {
        let authentic = match self {
            Self::Ring(key) => {
                use ring::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, Aad::from(associated), sealed).is_ok()
            }
            Self::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, Aad::from(associated), sealed).is_ok()
            }
        };
        if authentic { Ok(()) } else { Err(SrtpError::NotAuthentic) }
    }
}

pub(super) struct CmCipher {
    key: EncryptingKey,
    authentication: hmac::Key,
    /// The session salt in the upper 112 bits.
    salt: u128,
}

impl CmCipher {
    /// RFC 3711 §4.1.1: `(salt << 16) XOR (SSRC << 64) XOR (index << 16)`.
    fn iv(&self, ssrc: u32, index: u64) -> [u8; 16] {
        (self.salt ^ (u128::from(ssrc) << 64) ^ (u128::from(index) << 16)).to_be_bytes()
    }

    fn tag(&self, packet: &[u8], suffix: &[u8]) -> [u8; CM_TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.authentication);
        context.update(packet);
        context.update(suffix);
        let mut tag = [0; CM_TAG_BYTES];
        tag.copy_from_slice(&context.sign().as_ref()[..CM_TAG_BYTES]);
        tag
    }

    fn open_rtcp(&self, trailer: &RtcpTrailer, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let Some((signed, tag)) = packet.split_last_chunk_mut::<CM_TAG_BYTES>() else {
            return Err(SrtpError::NotAuthentic);
        };
        constant_time::verify_slices_are_equal(&self.tag(signed, &[]), tag)
            .map_err(|_| SrtpError::NotAuthentic)?;
        let clear = signed.len().checked_sub(INDEX_WORD_BYTES).ok_or(SrtpError::NotAuthentic)?;
        if trailer.word & ENCRYPTED != 0 {
            let iv = self.iv(trailer.ssrc, trailer.index.into());
            apply_keystream(&self.key, iv, &mut signed[RTCP_HEADER_BYTES..clear])?;
        }
        Ok(clear)
    }
}
