//! What nodes of a cluster tell each other of their parks. Which write holds is decided by its version; what
//! the settings file of a node says of a camera holds there, as over its own changes.

use std::collections::BTreeMap;

use control::CameraId;

use super::kept::Learned;
use super::{Cameras, Done, Entry, Known, Park, ParkError, put_if_room};
use crate::app::CameraChange;
use crate::config::{Carried, StoredStamp};
use crate::ingest::SourceUrl;
use crate::versions::Changes;

impl Park {
    /// What was written after a place in this node's order.
    pub(crate) fn changes(&self, epoch: &str, place: u64) -> Changes {
        self.0.known.keeper.versions().after(epoch, place)
    }

    /// Those that were written later than what is known here.
    pub(crate) fn wanted(&self, stamps: Vec<(String, StoredStamp)>) -> Vec<String> {
        let versions = self.0.known.keeper.versions();
        let news = stamps.into_iter().filter(|(id, stamp)| versions.is_news(id, stamp));
        news.map(|(id, _)| id).collect()
    }

    /// The last writes of cameras, with their passwords: to be sealed.
    pub(crate) async fn carried(&self, ids: Vec<String>) -> Result<Vec<Carried>, ParkError> {
        let park = self.clone();
        let read = tokio::task::spawn_blocking(move || park.0.known.keeper.carried(&ids));
        Ok(read.await.map_err(|_| ParkError::ShuttingDown)??)
    }

    /// Takes what another node wrote, and says how many of it were news.
    pub(crate) async fn learn(&self, carried: Vec<Carried>) -> Result<usize, ParkError> {
        self.act(move |known: &Known, cameras: &mut Cameras| {
            let learned = known.keeper.learn(carried, &known.file)?;
            let answer = learned.len();
            let mut change = CameraChange::default();
            for learned in learned {
                known.lay(cameras, learned, &mut change);
            }
            Ok(Done { answer, change, rows: Vec::new() })
        })
        .await
    }
}

impl Known {
    /// Lays one record over what was.
    fn lay(&self, cameras: &mut Cameras, learned: Learned, change: &mut CameraChange) {
        let Learned { id, record, .. } = learned;
        match self.standing(&id, record) {
            Some(entry) => {
                let entry = with_places_of(cameras, &id, entry);
                let put = entry.application(self.reach);
                if put_if_room(cameras, id.clone(), entry) {
                    tracing::info!(camera_id = %id, url = put.main.display(), "a camera is as another node has it");
                    change.put.push(put);
                }
            }
            None if cameras.remove(&id).is_some() => {
                tracing::info!(camera_id = %id, "a camera is deleted, as at another node");
                change.gone.push(id);
            }
            None => {}
        }
    }
}

/// Who publishes to a camera whose key stays goes on.
fn with_places_of(cameras: &BTreeMap<CameraId, Entry>, id: &CameraId, mut entry: Entry) -> Entry {
    if let Some(before) = cameras.get(id)
        && let (SourceUrl::Whip(old), SourceUrl::Whip(new)) =
            (&before.camera.url, &entry.camera.url)
        && old.digest() == new.digest()
    {
        entry.camera.url = before.camera.url.clone();
    }
    entry
}
