//! The key tap: a DTLS provider that takes the SRTP keys before str0m sees them.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use str0m::config::{DtlsCert, DtlsVersion};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion,
    SrtpProfile as DtlsSrtpProfile,
};

use super::SessionKeys;
use crate::srtp::SrtpProfile;

pub(super) type KeySlot = Arc<Mutex<Option<SessionKeys>>>;

thread_local! {
    /// The slot of the DTLS instance made last on this thread: str0m makes it inside `build`, and
    /// hands no reference out.
    static NEWEST_SLOT: RefCell<KeySlot> = RefCell::default();
}

/// Makes DTLS instances whose keying material we see.
#[derive(Debug)]
pub(super) struct KeyTapProvider(pub(super) &'static dyn DtlsProvider);

impl DtlsProvider for KeyTapProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.0.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let dtls = self.0.new_dtls(certificate, now, version, mtu)?;
        let slot = KeySlot::default();
        NEWEST_SLOT.with_borrow_mut(|newest| *newest = Arc::clone(&slot));
        Ok(Box::new(KeyTap { dtls, slot }))
    }
}

/// A DTLS instance that puts the keying material into a slot instead of handing it to str0m. That
/// saves str0m's own SRTP contexts too, 9 KB a viewer.
#[derive(Debug)]
pub(super) struct KeyTap {
    dtls: Box<dyn DtlsInstance>,
    slot: KeySlot,
}

impl KeyTap {
    /// The slot of the instance that this thread made last.
    pub(super) fn take_newest() -> KeySlot {
        NEWEST_SLOT.take()
    }
}

impl DtlsInstance for KeyTap {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.dtls.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let output = self.dtls.poll_output(buffer);
        let DtlsOutput::KeyingMaterial(material, profile) = &output else { return output };
        if let Some(profile) = our_profile(*profile) {
            let keys = SessionKeys { profile, material: material.to_vec() };
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
        }
        // Comes right before the keys as well, and means nothing a second time.
        DtlsOutput::Connected
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls.close()
    }
}

fn our_profile(profile: DtlsSrtpProfile) -> Option<SrtpProfile> {
    match profile {
        DtlsSrtpProfile::AEAD_AES_256_GCM => Some(SrtpProfile::AeadAes256Gcm),
        DtlsSrtpProfile::AEAD_AES_128_GCM => Some(SrtpProfile::AeadAes128Gcm),
        DtlsSrtpProfile::AES128_CM_SHA1_80 => Some(SrtpProfile::Aes128CmSha1_80),
        _ => None,
    }
}
