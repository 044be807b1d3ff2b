//! Seals what is secret before it is kept: AES-256-GCM under a key in a file beside the database.
//!
//! Who gets hold of the database, or of a copy of it, without the key file has no password. The key is
//! made once, with the first secret. One that is gone or another one is told when a secret is wanted;
//! what was sealed under it cannot be had back, and is to be written anew.
//!
//! ```text
//! +---------+------------------+------------+--------------------+---------+
//! | version | of the key, 8 B  | nonce 12 B | ciphertext         | tag 16 B|
//! +---------+------------------+------------+--------------------+---------+
//! ```

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretBox, SecretString};

use crate::data_dir::{DataDir, DataError};

/// The key file's name in the data directory.
const FILE: &str = "manifold.key";

const KEY_LENGTH: usize = 32;

/// The first byte of what is sealed.
const VERSION: u8 = 1;

/// What tells keys apart: the beginning of a digest, of which nobody learns the key.
const KEY_NAME_LENGTH: usize = 8;

const HEAD_LENGTH: usize = 1 + KEY_NAME_LENGTH + NONCE_LEN;

/// Seals and opens; cheap to clone.
#[derive(Clone)]
pub(crate) struct Vault(Arc<Inner>);

struct Inner {
    place: DataDir,
    /// `None` before the first use.
    key: Mutex<Option<Arc<Key>>>,
}

/// Why a secret is not to be had, or not kept. No variant repeats any of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// The key file cannot be read or made.
    #[error(transparent)]
    Place(#[from] DataError),
    /// The key file is not there.
    #[error("its key file {} is missing; put it back, or write the address anew", path.display())]
    NoKey {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is a key file, and it is another one.
    #[error(
        "it was sealed under another key than that in {}; put that one back, or write the address anew",
        path.display()
    )]
    OtherKey {
        /// The file that is there.
        path: PathBuf,
    },
    /// The key file holds no key.
    #[error("the key file {} is damaged; put back a copy of it", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// What was sealed was changed, or belongs to something else.
    #[error("it was changed since it was sealed; write the address anew")]
    Changed,
    /// The library could not seal; it has no reason to.
    #[error("it could not be sealed")]
    Unsealed,
}

struct Key {
    name: [u8; KEY_NAME_LENGTH],
    bytes: SecretBox<[u8; KEY_LENGTH]>,
}

impl Key {
    fn new(bytes: [u8; KEY_LENGTH]) -> Self {
        let mut name = [0; KEY_NAME_LENGTH];
        name.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..KEY_NAME_LENGTH]);
        Self { name, bytes: SecretBox::new(Box::new(bytes)) }
    }

    fn cipher(&self) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, self.bytes.expose_secret()).ok()
    }
}

impl Vault {
    /// The vault of a data directory; nothing is read or made.
    pub(crate) fn new(place: DataDir) -> Self {
        Self(Arc::new(Inner { place, key: Mutex::default() }))
    }

    /// Seals a secret of `owner`, which opens for the same owner alone. The key is made if there is none.
    pub(crate) fn seal(&self, owner: &str, secret: &SecretString) -> Result<Vec<u8>, VaultError> {
        let key = self.key_or_new()?;
        let cipher = key.cipher().ok_or(VaultError::Unsealed)?;
        let mut body = secret.expose_secret().as_bytes().to_vec();
        let nonce = cipher.seal_in_place_append_tag(Aad::from(owner), &mut body);
        let nonce = nonce.map_err(|_| VaultError::Unsealed)?;
        Ok([&[VERSION], &key.name[..], nonce.as_ref(), &body].concat())
    }

    /// The secret of `owner` again.
    pub(crate) fn open(&self, owner: &str, sealed: &[u8]) -> Result<SecretString, VaultError> {
        let (head, body) = sealed.split_at_checked(HEAD_LENGTH).ok_or(VaultError::Changed)?;
        let (name, nonce) = head[1..].split_at(KEY_NAME_LENGTH);
        let key = self.key()?.ok_or_else(|| VaultError::NoKey { path: self.path() })?;
        if head[0] != VERSION || *name != key.name {
            return Err(VaultError::OtherKey { path: self.path() });
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Changed)?;
        let cipher = key.cipher().ok_or(VaultError::Changed)?;
        let mut body = body.to_vec();
        let opened = cipher.open_in_place(nonce, Aad::from(owner), &mut body);
        let opened = opened.map_err(|_| VaultError::Changed)?;
        let text = std::str::from_utf8(opened).map_err(|_| VaultError::Changed)?;
        Ok(SecretString::from(text))
    }

    /// What changes with `text` and tells nothing of it to who does not have the key. `None` while there
    /// is no key.
    pub(crate) fn fingerprint(&self, text: &SecretString) -> Result<Option<Vec<u8>>, VaultError> {
        let Some(key) = self.key()? else { return Ok(None) };
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.bytes.expose_secret());
        Ok(Some(hmac::sign(&key, text.expose_secret().as_bytes()).as_ref().to_vec()))
    }

    /// The key, made where there is none.
    pub(crate) fn prepare(&self) -> Result<(), VaultError> {
        self.key_or_new().map(drop)
    }

    fn key(&self) -> Result<Option<Arc<Key>>, VaultError> {
        let mut key = self.0.key.lock().unwrap_or_else(PoisonError::into_inner);
        if key.is_none() {
            *key = self.read()?;
        }
        Ok(key.clone())
    }

    fn key_or_new(&self) -> Result<Arc<Key>, VaultError> {
        if let Some(key) = self.key()? {
            return Ok(key);
        }
        // Two who come at once make one key.
        let mut key = self.0.key.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match key.take() {
            Some(made) => made,
            None => Arc::new(self.make()?),
        };
        *key = Some(Arc::clone(&known));
        Ok(known)
    }

    fn make(&self) -> Result<Key, VaultError> {
        let mut bytes = [0; KEY_LENGTH];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| VaultError::Unsealed)?;
        self.0.place.write(FILE, &format!("{}\n", STANDARD.encode(bytes)))?;
        tracing::info!(file = %self.path().display(), "a key for passwords of cameras is made");
        Ok(Key::new(bytes))
    }

    fn read(&self) -> Result<Option<Arc<Key>>, VaultError> {
        let Some(text) = self.0.place.read(FILE)? else { return Ok(None) };
        let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or_else(|| VaultError::BadKey { path: self.path() })?;
        Ok(Some(Arc::new(Key::new(bytes))))
    }

    fn path(&self) -> PathBuf {
        self.0.place.path(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::tests::Temporary;

    const SECRET: &str = "canary-7f3a";

    fn secret() -> SecretString {
        SecretString::from(SECRET)
    }

    #[test]
    fn what_is_sealed_opens_after_a_restart_and_says_nothing_before() {
        let Temporary(place) = &Temporary::new();
        let sealed = Vault::new(place.clone()).seal("cam-1", &secret()).unwrap();
        assert!(!sealed.windows(6).any(|bytes| bytes == &SECRET.as_bytes()[..6]));

        let vault = Vault::new(place.clone());
        assert_eq!(vault.open("cam-1", &sealed).unwrap().expose_secret(), SECRET);
        let again = vault.seal("cam-1", &secret()).unwrap();
        assert_ne!(sealed, again, "equal passwords are not seen to be equal");
    }

    #[test]
    fn it_opens_for_its_owner_alone_and_only_unchanged() {
        let Temporary(place) = &Temporary::new();
        let vault = Vault::new(place.clone());
        let sealed = vault.seal("cam-1", &secret()).unwrap();
        assert!(matches!(vault.open("cam-2", &sealed), Err(VaultError::Changed)));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x80;
            assert!(vault.open("cam-1", &changed).is_err(), "byte {at}");
            assert!(vault.open("cam-1", &sealed[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn a_key_that_is_gone_or_another_one_is_told_with_its_file() {
        let Temporary(place) = &Temporary::new();
        let sealed = Vault::new(place.clone()).seal("cam-1", &secret()).unwrap();
        let path = place.path(FILE);
        let told = || Vault::new(place.clone()).open("cam-1", &sealed).unwrap_err().to_string();

        std::fs::remove_file(&path).unwrap();
        assert!(told().contains("is missing"), "{}", told());
        assert!(!path.exists(), "opening makes no key");
        Vault::new(place.clone()).prepare().unwrap();
        assert!(told().contains("another key"), "{}", told());
        place.write(FILE, "no key").unwrap();
        assert!(told().contains("is damaged"), "{}", told());
        assert!(told().contains(&path.display().to_string()), "{}", told());
    }

    #[test]
    fn a_fingerprint_changes_with_the_text_and_with_the_key() {
        let (one, other) = (Temporary::new(), Temporary::new());
        let print = |place: &Temporary, text: &str| {
            let vault = Vault::new(place.0.clone());
            vault.prepare().unwrap();
            vault.fingerprint(&SecretString::from(text)).unwrap().unwrap()
        };
        assert_eq!(print(&one, "a"), print(&one, "a"));
        assert_ne!(print(&one, "a"), print(&one, "b"));
        assert_ne!(print(&one, "a"), print(&other, "a"));
        assert_eq!(
            Vault::new(DataDir::of_process(Some(&one.0.path("none"))))
                .fingerprint(&secret())
                .unwrap(),
            None
        );
    }
}
