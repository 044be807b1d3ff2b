//! Our SRTP egress and SRTCP ingress (RFC 3711, RFC 7714): key derivation, seal, open.
//!
//! **Invariant:** under one key an SSRC never uses a packet index twice; `protect_rtp` refuses.

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
        match self {
            Self::AeadAes256Gcm => 2 * (32 + 12),
            Self::AeadAes128Gcm => 2 * (16 + 12),
            Self::Aes128CmSha1_80 => 2 * (16 + 14),
        }
    }
}

/// Why protecting or opening failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// The index was used before under this key: sending would break the cipher.
    #[error("packet index {index} of SSRC {ssrc:08x} is not above the last one sent")]
    IndexReused { ssrc: u32, index: u64 },
    /// Authentication failed, or the packet is too short.
    #[error("packet is not authentic")]
    NotAuthentic,
    /// The SRTCP index was seen before.
    #[error("packet was replayed")]
    Replayed,
    /// The keying material has the wrong length.
    #[error("keying material of {actual} bytes where the profile needs {expected}")]
    KeyLength { expected: usize, actual: usize },
}

/// What one viewer's packets are sealed with: RTP and RTCP out.
pub struct SrtpSender {}

impl SrtpSender {
    /// We are the DTLS server (`setup:passive`): sends with the server's half of the material.
    pub fn from_dtls_server(_profile: SrtpProfile, _material: &[u8]) -> Result<Self, SrtpError> {
        todo!()
    }
    /// Bytes that `protect_rtp` adds.
    pub fn rtp_overhead(&self) -> usize {
        todo!()
    }
    /// Appends the protected packet to `out`. `header` is the whole RTP header with its extensions;
    /// `index` is the 48-bit packet index (roll-over counter << 16 | sequence number), which must
    /// rise for each SSRC; the SSRC is read from the header.
    pub fn protect_rtp(&mut self, _header: &[u8], _payload: &[u8], _index: u64, _out: &mut Vec<u8>) -> Result<(), SrtpError> {
        todo!()
    }
    /// Appends the protected compound packet to `out`; keeps the SRTCP index itself.
    pub fn protect_rtcp(&mut self, _packet: &[u8], _out: &mut Vec<u8>) -> Result<(), SrtpError> {
        todo!()
    }
}

/// Opens a viewer's feedback.
pub struct SrtcpReceiver {}

impl SrtcpReceiver {
    /// We are the DTLS server: receives with the client's half of the material.
    pub fn from_dtls_server(_profile: SrtpProfile, _material: &[u8]) -> Result<Self, SrtpError> {
        todo!()
    }
    /// Decrypts in place and returns the compound packet; a replayed or forged one is an error and
    /// leaves the receiver's state as it was.
    pub fn unprotect_rtcp<'a>(&mut self, _packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        todo!()
    }
}
