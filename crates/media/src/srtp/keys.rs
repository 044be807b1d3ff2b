//! Key derivation: from the block that DTLS exports to session keys (RFC 5764 §4.2, RFC 3711 §4.3,
//! RFC 6188 §3 for 256-bit keys, RFC 7714 §11 for AES-GCM).

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};

use super::{SrtpError, SrtpProfile};

/// Which side of the DTLS handshake writes with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Who sent the ClientHello.
    Client,
    /// Who answered it.
    Server,
}

/// What a set of session keys protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Rtp,
    Rtcp,
}

/// One of the three session keys of a [`Purpose`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionKey {
    Cipher,
    Authentication,
    Salt,
}

/// The labels of RFC 3711 §4.3.1 and §4.3.2.
const fn label(purpose: Purpose, key: SessionKey) -> u8 {
    let within = match key {
        SessionKey::Cipher => 0,
        SessionKey::Authentication => 1,
        SessionKey::Salt => 2,
    };
    match purpose {
        Purpose::Rtp => within,
        Purpose::Rtcp => within + 3,
    }
}

/// One direction's master key and salt, borrowed from the exported block.
///
/// ```text
/// | client key | server key | client salt | server salt |
/// ```
pub(super) struct Master<'a> {
    /// 16 or 32 bytes.
    pub(super) key: &'a [u8],
    /// 12 or 14 bytes.
    pub(super) salt: &'a [u8],
}

impl<'a> Master<'a> {
    /// The half of the exported block that `writer` sends with.
    pub(super) fn from_exported(
        profile: SrtpProfile,
        material: &'a [u8],
        writer: Role,
    ) -> Result<Self, SrtpError> {
        let expected = profile.keying_material_len();
        if material.len() != expected {
            return Err(SrtpError::KeyLength { expected, actual: material.len() });
        }
        let (keys, salts) = material.split_at(2 * profile.key_len());
        let (client_key, server_key) = keys.split_at(profile.key_len());
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        Ok(match writer {
            Role::Client => Self { key: client_key, salt: client_salt },
            Role::Server => Self { key: server_key, salt: server_salt },
        })
    }

    /// Derives a session key with a key derivation rate of 0.
    ///
    /// The AES-CM PRF encrypts zeros in counter mode from this block on, the counter in its last
    /// two bytes. A salt of 12 bytes is filled up with zeros.
    ///
    /// ```text
    /// byte  0                   7               14  16
    ///       | salt ..           ^ label      .. | 0 0 |
    /// ```
    pub(super) fn derive<const N: usize>(
        &self,
        purpose: Purpose,
        key: SessionKey,
    ) -> Result<[u8; N], SrtpError> {
        let mut block = [0; 16];
        block[..self.salt.len()].copy_from_slice(self.salt);
        block[7] ^= label(purpose, key);
        let mut derived = [0; N];
        apply_keystream(&counter_mode_key(self.key)?, block, &mut derived)?;
        Ok(derived)
    }
}

/// An AES key for counter mode, of 16 or 32 bytes.
pub(super) fn counter_mode_key(key: &[u8]) -> Result<EncryptingKey, SrtpError> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    UnboundCipherKey::new(algorithm, key)
        .and_then(EncryptingKey::ctr)
        .map_err(|_| SrtpError::Cipher)
}

/// XORs `data` with the keystream that starts at the counter block `iv`.
pub(super) fn apply_keystream(
    key: &EncryptingKey,
    iv: [u8; 16],
    data: &mut [u8],
) -> Result<(), SrtpError> {
    key.less_safe_encrypt(data, EncryptionContext::Iv128(iv.into()))
        .map(|_| ())
        .map_err(|_| SrtpError::Cipher)
}
