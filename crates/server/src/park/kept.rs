//! What of the park is in the database, and how secrets in it are sealed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use control::{CameraId, SourceId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use secrecy::{ExposeSecret, SecretString};

use super::ParkError;
use crate::config::{Camera, StoredCamera, StoredUrl};
use crate::database::{Database, DatabaseError};
use crate::ingest::{RtspTransport, SourceUrl};
use crate::vault::{Vault, VaultError};

/// Cameras that were added or changed, by their ids.
const CAMERAS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cameras");

/// Cameras of the settings file that were removed, by their ids, with their fingerprints.
const REMOVED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("removed cameras");

/// A camera as it was found in the database.
pub(super) struct Record {
    /// `None`: it was removed.
    pub(super) camera: Option<Camera>,
    /// The fingerprint of the camera of the settings file whose place it has taken.
    covers: Option<Vec<u8>>,
}

/// Writes cameras down and reads them again.
pub(super) struct Keeper {
    database: Database,
    vault: Vault,
}

impl Keeper {
    pub(super) fn new(database: Database, vault: Vault) -> Self {
        Self { database, vault }
    }

    /// Everything that was kept. A camera whose address cannot be unsealed is there, and is of no use.
    pub(super) fn read(&self) -> Result<HashMap<CameraId, Record>, DatabaseError> {
        let mut records = HashMap::new();
        for (id, bytes) in self.rows(REMOVED)? {
            records.insert(id, Record { camera: None, covers: Some(bytes) });
        }
        for (id, bytes) in self.rows(CAMERAS)? {
            match self.camera(&id, &bytes) {
                Some(record) => drop(records.insert(id, record)),
                None => {
                    tracing::error!(camera_id = %id, "a camera in the database cannot be read and is left out");
                }
            }
        }
        Ok(records)
    }

    fn rows(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
    ) -> Result<Vec<(CameraId, Vec<u8>)>, DatabaseError> {
        let rows = self.database.read_now(|transaction| {
            let mut rows = Vec::new();
            for row in transaction.open_table(table)?.iter()? {
                let (id, bytes) = row?;
                // Only ids of cameras are written.
                if let Ok(id) = CameraId::parse(id.value()) {
                    rows.push((id, bytes.value().to_vec()));
                }
            }
            Ok(rows)
        });
        Ok(rows?.unwrap_or_default())
    }

    /// Keeps cameras, all or none. One that takes the place of the settings file's remembers which that was.
    pub(super) fn keep(
        &self,
        cameras: &[Camera],
        file: &BTreeMap<CameraId, Camera>,
    ) -> Result<(), ParkError> {
        let mut rows = Vec::with_capacity(cameras.len());
        for camera in cameras {
            let covers =
                file.get(&camera.id).map(|file| self.fingerprint_made(file)).transpose()?;
            rows.push((camera.id.as_str(), self.stored(camera, covers)?.to_bytes()));
        }
        let write = |transaction: &WriteTransaction| {
            let mut kept = transaction.open_table(CAMERAS)?;
            let mut removed = transaction.open_table(REMOVED)?;
            for (id, bytes) in &rows {
                kept.insert(*id, bytes.as_slice())?;
                removed.remove(*id)?;
            }
            Ok(())
        };
        Ok(self.database.write_now(write)?)
    }

    /// Forgets a camera; one of the settings file is kept as removed.
    pub(super) fn forget(&self, id: &CameraId, file: Option<&Camera>) -> Result<(), ParkError> {
        let covers = file.map(|file| self.fingerprint_made(file)).transpose()?;
        let write = |transaction: &WriteTransaction| {
            transaction.open_table(CAMERAS)?.remove(id.as_str())?;
            let mut removed = transaction.open_table(REMOVED)?;
            match &covers {
                Some(covers) => removed.insert(id.as_str(), covers.as_slice())?,
                None => removed.remove(id.as_str())?,
            };
            Ok(())
        };
        Ok(self.database.write_now(write)?)
    }

    /// Whether the settings file's camera is the one whose place the record has taken. Without the key that
    /// cannot be told, and nothing is let back that was removed.
    pub(super) fn covers(&self, record: &Record, file: &Camera) -> bool {
        let Some(covers) = &record.covers else { return false };
        match self.vault.fingerprint(&whole(file)) {
            Ok(Some(fingerprint)) => fingerprint == *covers,
            Ok(None) | Err(_) => true,
        }
    }

    fn fingerprint_made(&self, file: &Camera) -> Result<Vec<u8>, VaultError> {
        self.vault.prepare()?;
        // There is a key, so there is a fingerprint.
        Ok(self.vault.fingerprint(&whole(file))?.unwrap_or_default())
    }

    fn stored(&self, camera: &Camera, covers: Option<Vec<u8>>) -> Result<StoredCamera, VaultError> {
        let sub_url = camera.sub_url.as_ref();
        Ok(StoredCamera {
            name: camera.name.clone(),
            name_ar: camera.name_ar.clone(),
            location: camera.location.clone(),
            source: camera.source.to_string(),
            url: self.seal(&camera.id, "url", &camera.url)?,
            sub_url: sub_url.map(|url| self.seal(&camera.id, "sub_url", url)).transpose()?,
            transport: camera.transport.word().to_owned(),
            on_demand: camera.on_demand,
            close_after_ms: u64::try_from(camera.close_after.as_millis()).unwrap_or(u64::MAX),
            covers,
        })
    }

    fn seal(&self, id: &CameraId, part: &str, url: &SourceUrl) -> Result<StoredUrl, VaultError> {
        let sealed = match url {
            // As it was: there may be a key for it again.
            SourceUrl::Sealed { sealed, .. } => Some(sealed.clone()),
            url if url.has_credentials() => {
                Some(self.vault.seal(&owner(id, part), &url.to_secret())?)
            }
            SourceUrl::Rtsp { .. }
            | SourceUrl::Whep { .. }
            | SourceUrl::Test { .. }
            | SourceUrl::Whip(_) => None,
        };
        let shown = match (&sealed, url) {
            // A place without a key is shown like one with.
            (None, SourceUrl::Whip(_)) => url.to_secret().expose_secret().to_owned(),
            _ => url.display(),
        };
        Ok(StoredUrl { shown, sealed })
    }

    fn camera(&self, id: &CameraId, bytes: &[u8]) -> Option<Record> {
        let stored = StoredCamera::from_bytes(bytes)?;
        let url = self.unseal(id, "url", stored.url)?;
        let sub_url = match stored.sub_url {
            Some(sub_url) => Some(self.unseal(id, "sub_url", sub_url)?),
            None => None,
        };
        let camera = Camera {
            id: id.clone(),
            name: stored.name,
            name_ar: stored.name_ar,
            location: stored.location,
            source: SourceId::parse(&stored.source).ok()?,
            url,
            sub_url,
            transport: RtspTransport::of_word(&stored.transport)?,
            on_demand: stored.on_demand,
            close_after: Duration::from_millis(stored.close_after_ms),
        };
        Some(Record { camera: Some(camera), covers: stored.covers })
    }

    fn unseal(&self, id: &CameraId, part: &str, stored: StoredUrl) -> Option<SourceUrl> {
        let StoredUrl { shown, sealed } = stored;
        let Some(sealed) = sealed else { return SourceUrl::parse(&shown).ok() };
        match self.vault.open(&owner(id, part), &sealed) {
            Ok(text) => SourceUrl::from_secret(&text).ok(),
            Err(error) => {
                tracing::error!(camera_id = %id, "a camera's address cannot be read: {error}");
                Some(SourceUrl::Sealed { shown, sealed, reason: error.to_string() })
            }
        }
    }
}

/// What is sealed for one address does not open for another.
fn owner(id: &CameraId, part: &str) -> String {
    format!("camera {id} {part}")
}

/// Everything that the settings file says of a camera.
fn whole(camera: &Camera) -> SecretString {
    let sub_url = camera.sub_url.as_ref().map(SourceUrl::to_secret).unwrap_or_default();
    let parts = [
        camera.name.as_str(),
        &camera.name_ar,
        &camera.location,
        camera.source.as_str(),
        camera.url.to_secret().expose_secret(),
        sub_url.expose_secret(),
        camera.transport.word(),
        if camera.on_demand { "on demand" } else { "warm" },
        &camera.close_after.as_millis().to_string(),
    ]
    // No control character is in any of them.
    .join("\n");
    SecretString::from(parts)
}
