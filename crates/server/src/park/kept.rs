//! What of the park is in the database, and how secrets in it are sealed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::{CameraId, SourceId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use secrecy::{ExposeSecret, SecretString};

use super::ParkError;
use crate::config::{Camera, Carried, CarriedCamera, StoredCamera, StoredUrl, StoredVersion};
use crate::database::{Database, DatabaseError};
use crate::ingest::{RtspTransport, SourceUrl};
use crate::vault::{Vault, VaultError};
use crate::versions::{self, VersionTable, Versions};

/// Cameras that were added or changed, by their ids.
const CAMERAS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cameras");

/// Cameras of the settings file that were removed, by their ids, with their fingerprints.
const REMOVED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("removed cameras");

/// The last write of each of them, and of those that were deleted.
const VERSIONS: VersionTable = TableDefinition::new("camera versions");

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
    versions: Mutex<Versions>,
}

/// A write of another node, as it is kept here.
pub(super) struct Learned {
    pub(super) id: CameraId,
    version: StoredVersion,
    pub(super) record: Record,
}

impl Keeper {
    /// Of a node of this name; a server that is alone has none.
    pub(super) fn new(database: Database, vault: Vault, node: &str) -> Self {
        Self { database, vault, versions: Mutex::new(Versions::new(node)) }
    }

    pub(super) fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was kept. A camera whose address cannot be unsealed is there, and is of no use.
    pub(super) fn read(&self) -> Result<HashMap<CameraId, Record>, DatabaseError> {
        let mut records = HashMap::new();
        self.versions().read(&self.database, VERSIONS)?;
        for (id, bytes) in self.rows(REMOVED)? {
            self.versions().note_old(id.as_str());
            records.insert(id, Record { camera: None, covers: Some(bytes) });
        }
        for (id, bytes) in self.rows(CAMERAS)? {
            self.versions().note_old(id.as_str());
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
            let id = camera.id.clone();
            let file = file.get(&id);
            let covers = file.map(|file| self.fingerprint_made(file)).transpose()?;
            let version = self.version(&id, None, file)?;
            rows.push(Learned {
                id,
                version,
                record: Record { camera: Some(camera.clone()), covers },
            });
        }
        self.write(&rows)
    }

    /// Keeps writes, all or none, and counts them as made.
    fn write(&self, rows: &[Learned]) -> Result<(), ParkError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut stored = Vec::with_capacity(rows.len());
        for Learned { id, record, .. } in rows {
            let camera = record.camera.as_ref();
            let camera = camera.map(|camera| self.stored(camera, record.covers.clone()));
            stored.push((id.as_str(), camera.transpose()?, record.covers.as_ref()));
        }
        let forgotten = self.versions().forgettable(now());
        let write = |transaction: &WriteTransaction| {
            let mut kept = transaction.open_table(CAMERAS)?;
            let mut removed = transaction.open_table(REMOVED)?;
            for (id, camera, covers) in &stored {
                match camera {
                    Some(camera) => kept.insert(*id, camera.to_bytes().as_slice())?,
                    None => kept.remove(*id)?,
                };
                match covers.filter(|_| camera.is_none()) {
                    Some(covers) => removed.insert(*id, covers.as_slice())?,
                    None => removed.remove(*id)?,
                };
            }
            let versions = rows.iter().map(|row| (row.id.as_str(), &row.version));
            versions::keep(transaction, VERSIONS, versions, &forgotten)
        };
        self.database.write_now(write)?;
        let mut versions = self.versions();
        versions.forget(&forgotten);
        rows.iter().for_each(|row| versions.note(row.id.as_str(), row.version.clone()));
        Ok(())
    }

    /// That of a write which is made now.
    fn version(
        &self,
        id: &CameraId,
        gone_at: Option<u64>,
        file: Option<&Camera>,
    ) -> Result<StoredVersion, VaultError> {
        let covers = file.map(|file| self.vault.seal(&owner(id, COVERED), &whole(file)));
        Ok(StoredVersion { stamp: self.versions().next(), gone_at, covers: covers.transpose()? })
    }

    /// Forgets a camera, but not that it was removed.
    pub(super) fn forget(&self, id: &CameraId, file: Option<&Camera>) -> Result<(), ParkError> {
        let covers = file.map(|file| self.fingerprint_made(file)).transpose()?;
        let version = self.version(id, Some(now()), file)?;
        let record = Record { camera: None, covers };
        self.write(&[Learned { id: id.clone(), version, record }])
    }

    /// Keeps what is news of what another node wrote; says what it was.
    pub(super) fn learn(
        &self,
        carried: Vec<Carried>,
        file: &BTreeMap<CameraId, Camera>,
    ) -> Result<Vec<Learned>, ParkError> {
        let mut learned = Vec::with_capacity(carried.len());
        for carried in carried {
            let Ok(id) = CameraId::parse(&carried.id) else { continue };
            if self.versions().is_news(&carried.id, &carried.stamp) {
                learned.extend(self.read_carried(id.clone(), carried, file.get(&id))?);
            }
        }
        self.write(&learned)?;
        Ok(learned)
    }

    /// `None`: it is no camera that could be.
    fn read_carried(
        &self,
        id: CameraId,
        carried: Carried,
        file: Option<&Camera>,
    ) -> Result<Option<Learned>, VaultError> {
        let Carried { stamp, covers: covered, camera, .. } = carried;
        let gone_at = camera.is_none().then(now);
        let camera = match camera {
            None => None,
            Some(camera) => match carried_camera(&id, camera) {
                None => return Ok(None),
                camera => camera,
            },
        };
        let covered = covered.map(SecretString::from);
        // The same camera stands in both settings files, so that the change is one of this node's as well.
        let same = file.filter(|file| {
            covered.as_ref().is_some_and(|text| text.expose_secret() == whole(file).expose_secret())
        });
        let covers = same.map(|file| self.fingerprint_made(file)).transpose()?;
        let sealed = covered.map(|text| self.vault.seal(&owner(&id, COVERED), &text));
        let version = StoredVersion { stamp, gone_at, covers: sealed.transpose()? };
        Ok(Some(Learned { id, version, record: Record { camera, covers } }))
    }

    /// The last writes of cameras, for another node. Those that cannot be read here are left out.
    pub(super) fn carried(&self, ids: &[String]) -> Result<Vec<Carried>, DatabaseError> {
        let found = self.database.read_now(|transaction| {
            let cameras = versions::rows(transaction, CAMERAS, ids)?;
            Ok((cameras, versions::rows(transaction, VERSIONS, ids)?))
        })?;
        let Some((cameras, kept)) = found else { return Ok(Vec::new()) };
        let rows = ids.iter().zip(cameras).zip(kept);
        Ok(rows.filter_map(|((id, camera), kept)| self.carry(id, camera, kept)).collect())
    }

    fn carry(&self, id: &str, bytes: Option<Vec<u8>>, kept: Option<Vec<u8>>) -> Option<Carried> {
        let id = CameraId::parse(id).ok()?;
        let version = match kept {
            Some(kept) => StoredVersion::from_bytes(&kept)?,
            None => self.versions().get(id.as_str())?.clone(),
        };
        let open = |sealed: Vec<u8>| self.vault.open(&owner(&id, COVERED), &sealed);
        let covers = version.covers.map(open).transpose().ok()?;
        let covers = covers.map(|text| text.expose_secret().to_owned());
        let camera = match bytes {
            Some(bytes) => Some(carry_camera(self.camera(&id, &bytes)?.camera?)?),
            None => None,
        };
        let layout = None;
        Some(Carried { id: id.to_string(), stamp: version.stamp, covers, camera, layout })
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

/// The part of a camera's record that has the camera of the settings file whose place it has taken.
const COVERED: &str = "covered";

/// In seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `None`: its address cannot be read here.
fn carry_camera(camera: Camera) -> Option<CarriedCamera> {
    let text = |url: &SourceUrl| match url {
        SourceUrl::Sealed { .. } => None,
        SourceUrl::Rtsp { .. }
        | SourceUrl::Whep { .. }
        | SourceUrl::Test { .. }
        | SourceUrl::Whip(_) => Some(url.to_secret().expose_secret().to_owned()),
    };
    Some(CarriedCamera {
        url: text(&camera.url)?,
        sub_url: match &camera.sub_url {
            Some(url) => Some(text(url)?),
            None => None,
        },
        name: camera.name,
        name_ar: camera.name_ar,
        location: camera.location,
        source: camera.source.to_string(),
        transport: camera.transport.word().to_owned(),
        on_demand: camera.on_demand,
        close_after_ms: u64::try_from(camera.close_after.as_millis()).unwrap_or(u64::MAX),
    })
}

fn carried_camera(id: &CameraId, carried: CarriedCamera) -> Option<Camera> {
    let url = |text: String| SourceUrl::from_secret(&SecretString::from(text)).ok();
    Some(Camera {
        id: id.clone(),
        name: carried.name,
        name_ar: carried.name_ar,
        location: carried.location,
        source: SourceId::parse(&carried.source).ok()?,
        url: url(carried.url)?,
        sub_url: match carried.sub_url {
            Some(sub_url) => Some(url(sub_url)?),
            None => None,
        },
        transport: RtspTransport::of_word(&carried.transport)?,
        on_demand: carried.on_demand,
        close_after: Duration::from_millis(carried.close_after_ms),
    })
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
