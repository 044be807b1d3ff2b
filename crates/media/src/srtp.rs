//! Our SRTP egress and SRTCP ingress (RFC 3711, RFC 7714): key derivation, seal, open.
//!
//! ```text
//! SRTP    | RTP header | ciphertext | tag (16) |                      AEAD_AES_*_GCM
//!         | RTP header | ciphertext | tag (10) |                      AES128_CM_HMAC_SHA1_80
//! SRTCP   | RTCP header (8) | ciphertext | tag (16) | E + index (4) | AEAD_AES_*_GCM
//!         | RTCP header (8) | ciphertext | E + index (4) | tag (10) | AES128_CM_HMAC_SHA1_80
//! ```
//!
//! This module does not re-key or use MKIs. The server opens no RTP, as a viewer sends none; what a
//! viewer does with ours is in [`ReceivedSession`], for load tools and tests. It reads no clock and
//! no randomness.
//!
//! **Invariant:** under one key an SSRC never uses a packet index for two different packets.
//! `protect_rtp` refuses an index that is not above the last; `protect_late_rtp` takes one that is
//! not, where it is known for certain that it was left out, and then never again; `repeat_rtp` takes
//! none that was not used, and its caller hands over the very packet that used it.

mod backend;
mod cipher;
mod index;
mod keys;
mod received;

use std::fmt;

pub use backend::{
    CALIBRATION_PACKETS, CALIBRATION_PAYLOAD_BYTES, GcmBackend, calibrate_gcm, calibration_round,
    gcm_backend, set_gcm_backend,
};
use cipher::Cipher;
pub(crate) use index::LATE_INDICES;
use index::{ReplayWindows, SentIndices};
pub use keys::Role;
use keys::{Master, Purpose};
pub use received::ReceivedSession;

/// Bytes of an RTP header without contributing sources and extensions (RFC 3550 §5.1).
const RTP_HEADER_BYTES: usize = 12;

/// Bytes of an RTCP packet that SRTCP leaves in the clear: the first header and the sender's SSRC
/// (RFC 3711 §3.4).
const RTCP_HEADER_BYTES: usize = 8;

/// One above the highest RTP packet index, which has 48 bits (RFC 3711 §3.3.1).
const RTP_INDEX_END: u64 = 1 << 48;

/// One above the highest SRTCP index, which has 31 bits (RFC 3711 §3.4).
const RTCP_INDEX_END: u32 = 1 << 31;

/// The protection profiles that we answer with (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SrtpProfile {
    /// AEAD_AES_256_GCM.
    AeadAes256Gcm,
    /// AEAD_AES_128_GCM.
    AeadAes128Gcm,
    /// AES128_CM_HMAC_SHA1_80.
    Aes128CmSha1_80,
}

impl SrtpProfile {
    /// Bytes of keying material that DTLS exports: client key, server key, client salt, server salt.
    pub const fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// Bytes of a master key and of a session key.
    const fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
        }
    }

    /// Bytes of a master salt and of a session salt.
    const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }
}

/// Why protecting or opening failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// The index was used before under this key: sending would break the cipher.
    #[error("packet index {index} of SSRC {ssrc:08x} was used, or is too old to tell")]
    IndexReused {
        /// The stream that the packet belongs to.
        ssrc: u32,
        /// The index that was asked for.
        index: u64,
    },
    /// Authentication failed, or the packet is too short.
    #[error("packet is not authentic")]
    NotAuthentic,
    /// The SRTCP index was seen before.
    #[error("packet was replayed")]
    Replayed,
    /// The keying material has the wrong length.
    #[error("keying material of {actual} bytes where the profile needs {expected}")]
    KeyLength {
        /// See [`SrtpProfile::keying_material_len`].
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// A packet is to be repeated that was never sent: it would use up an index unnoticed.
    #[error("packet index {index} of SSRC {ssrc:08x} was not used and cannot be repeated")]
    NeverSent {
        /// The stream that the packet belongs to.
        ssrc: u32,
        /// The index that was asked for.
        index: u64,
    },
    /// All packet indices under this key are used up (2^48 of RTP, 2^31 of RTCP): the viewer must
    /// connect anew.
    #[error("no packet index is left under this key; a new DTLS handshake is needed")]
    IndexExhausted,
    /// One key serves a bounded number of streams in each direction.
    #[error("SSRC {ssrc:08x} is one more than the {max} that one key serves")]
    TooManySsrcs {
        /// The stream that found no place.
        ssrc: u32,
        /// How many there are places for.
        max: usize,
    },
    /// The packet to protect has no complete header.
    #[error("header of {actual} bytes where at least {needed} are needed")]
    HeaderTooShort {
        /// What was given.
        actual: usize,
        /// 12 for RTP, 8 for RTCP.
        needed: usize,
    },
    /// The header's sequence number is not the lower half of the index, so that no receiver could
    /// find the index again.
    #[error("sequence number {sequence} does not belong to packet index {index}")]
    SequenceMismatch {
        /// The sequence number in the header.
        sequence: u16,
        /// The index that was asked for.
        index: u64,
    },
    /// The cryptographic library refused a key, or a packet longer than it can seal.
    #[error("the cipher refused the key or the packet's length")]
    Cipher,
}

/// What one viewer's packets are sealed with: RTP and RTCP out.
pub struct SrtpSender {
    profile: SrtpProfile,
    rtp: Cipher,
    rtcp: Cipher,
    sent: SentIndices,
    /// The next SRTCP index. One counter for all SSRCs: a pair of SSRC and index is then unique.
    next_rtcp_index: u32,
}

impl SrtpSender {
    /// We are the DTLS server (`setup:passive`): sends with the server's half of the material.
    /// AES-GCM runs on the back end that [`set_gcm_backend`] chose before.
    pub fn from_dtls_server(profile: SrtpProfile, material: &[u8]) -> Result<Self, SrtpError> {
        Self::with_backend(profile, material, gcm_backend())
    }

    fn with_backend(
        profile: SrtpProfile,
        material: &[u8],
        backend: GcmBackend,
    ) -> Result<Self, SrtpError> {
        let master = Master::from_exported(profile, material, Role::Server)?;
        let rtp = Cipher::derive(profile, &master, Purpose::Rtp, backend)?;
        let rtcp = Cipher::derive(profile, &master, Purpose::Rtcp, backend)?;
        Ok(Self::from_ciphers(profile, rtp, rtcp))
    }

    fn from_ciphers(profile: SrtpProfile, rtp: Cipher, rtcp: Cipher) -> Self {
        // RFC 3711 §3.4: the index is 0 before the first packet and is incremented for each.
        Self { profile, rtp, rtcp, sent: SentIndices::default(), next_rtcp_index: 1 }
    }

    /// Bytes that `protect_rtp` adds.
    pub fn rtp_overhead(&self) -> usize {
        self.rtp.tag_len()
    }

    /// Appends the protected packet to `out`. `header` is the whole RTP header with its extensions;
    /// `index` is the 48-bit packet index (roll-over counter << 16 | sequence number), which must
    /// rise for each SSRC; the SSRC is read from the header.
    ///
    /// On an error `out` is left as it was. A key serves at most 8 SSRCs.
    pub fn protect_rtp(
        &mut self,
        header: &[u8],
        payload: &[u8],
        index: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        self.protect_rtp_parts(header, &[payload], index, out)
    }

    /// Like [`Self::protect_rtp`], with the payload in parts, as a retransmission has it: the
    /// original sequence number and the original payload (RFC 4588 §4).
    pub fn protect_rtp_parts(
        &mut self,
        header: &[u8],
        payload: &[&[u8]],
        index: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        let ssrc = rtp_ssrc(header, index)?;
        self.sent.claim(ssrc, index)?;
        self.seal(ssrc, header, payload, index, out)
    }

    /// Like [`Self::protect_rtp`], for packets that are passed on in the order in which they came:
    /// `index` may also be one of the newest 128 if it was left out until now.
    pub fn protect_late_rtp(
        &mut self,
        header: &[u8],
        payload: &[u8],
        index: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        let ssrc = rtp_ssrc(header, index)?;
        self.sent.claim_late(ssrc, index)?;
        self.seal(ssrc, header, &[payload], index, out)
    }

    /// Whether [`Self::protect_late_rtp`] would take this index of this SSRC.
    pub fn is_free(&self, ssrc: u32, index: u64) -> bool {
        self.sent.is_free(ssrc, index)
    }

    /// Appends a packet that was sent before once more, byte for byte. `index` must have been
    /// used already, and header and payload must be **exactly** those that were sealed with it.
    ///
    /// The nonce is made of key, SSRC and index alone (RFC 7714 §8.1), so that this one uses it
    /// again. Over the same header and payload that gives the same ciphertext and tag: who has both
    /// copies has one. Over anything else it would give away the difference of the plaintexts and
    /// the key of all tags. Callers therefore build a repeat only from what they wrote down when
    /// they sent the packet, and from a frame, which never changes.
    ///
    /// On an error `out` is left as it was.
    pub fn repeat_rtp(
        &self,
        header: &[u8],
        payload: &[u8],
        index: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        let ssrc = rtp_ssrc(header, index)?;
        if !self.sent.may_have_used(ssrc, index) {
            return Err(SrtpError::NeverSent { ssrc, index });
        }
        self.seal(ssrc, header, &[payload], index, out)
    }

    fn seal(
        &self,
        ssrc: u32,
        header: &[u8],
        payload: &[&[u8]],
        index: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SrtpError> {
        let start = out.len();
        let payload_bytes: usize = payload.iter().map(|part| part.len()).sum();
        out.reserve(header.len() + payload_bytes + self.rtp.tag_len());
        let sealed = self.rtp.seal_rtp(ssrc, index, header, payload, out);
        sealed.inspect_err(|_| out.truncate(start))
    }

    /// Appends the protected compound packet to `out`; keeps the SRTCP index itself. It is always
    /// encrypted (E flag set).
    ///
    /// On an error `out` is left as it was.
    pub fn protect_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), SrtpError> {
        let Some((header, body)) = packet.split_first_chunk::<RTCP_HEADER_BYTES>() else {
            return Err(SrtpError::HeaderTooShort {
                actual: packet.len(),
                needed: RTCP_HEADER_BYTES,
            });
        };
        let index = self.next_rtcp_index;
        if index >= RTCP_INDEX_END {
            return Err(SrtpError::IndexExhausted);
        }
        // Spent even if sealing fails: a gap harms nobody, a second use would.
        self.next_rtcp_index += 1;
        let start = out.len();
        let sealed = self.rtcp.seal_rtcp(index, header, body, out);
        sealed.inspect_err(|_| out.truncate(start))
    }
}

impl fmt::Debug for SrtpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpSender").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The SSRC of an RTP header, once the header is seen to belong to `index`.
fn rtp_ssrc(header: &[u8], index: u64) -> Result<u32, SrtpError> {
    let Some(fixed) = header.first_chunk::<RTP_HEADER_BYTES>() else {
        return Err(SrtpError::HeaderTooShort { actual: header.len(), needed: RTP_HEADER_BYTES });
    };
    let sequence = u16::from_be_bytes([fixed[2], fixed[3]]);
    if index & 0xffff != u64::from(sequence) {
        return Err(SrtpError::SequenceMismatch { sequence, index });
    }
    Ok(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]))
}

/// Opens a viewer's feedback.
pub struct SrtcpReceiver {
    profile: SrtpProfile,
    cipher: Cipher,
    seen: ReplayWindows,
    is_newest: bool,
}

impl SrtcpReceiver {
    /// We are the DTLS server: receives with the client's half of the material.
    pub fn from_dtls_server(profile: SrtpProfile, material: &[u8]) -> Result<Self, SrtpError> {
        let master = Master::from_exported(profile, material, Role::Client)?;
        let cipher = Cipher::derive(profile, &master, Purpose::Rtcp, gcm_backend())?;
        Ok(Self::from_cipher(profile, cipher))
    }

    fn from_cipher(profile: SrtpProfile, cipher: Cipher) -> Self {
        Self { profile, cipher, seen: ReplayWindows::default(), is_newest: false }
    }

    /// Decrypts in place and returns the compound packet; a replayed or forged one is an error and
    /// leaves the receiver's state as it was.
    ///
    /// Packets may come out of order within a window of 128 for each of at most 16 sending SSRCs
    /// (a browser counts the SRTCP index for each SSRC apart). A packet that is only
    /// authenticated (E flag clear) is taken too, as RFC 3711 §3.4 lets the sender choose.
    pub fn unprotect_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        let trailer = self.cipher.rtcp_trailer(packet).ok_or(SrtpError::NotAuthentic)?;
        self.seen.check(trailer.ssrc, trailer.index)?;
        let len = self.cipher.open_rtcp(&trailer, packet)?;
        self.is_newest = self.seen.record(trailer.ssrc, trailer.index);
        Ok(&packet[..len])
    }

    /// Whether the packet that was opened last is the newest of its SSRC: none with a higher index
    /// came before it.
    pub fn is_newest(&self) -> bool {
        self.is_newest
    }
}

impl fmt::Debug for SrtcpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtcpReceiver").field("profile", &self.profile).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
