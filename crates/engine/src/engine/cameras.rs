//! The camera park changes; the server stops.

use std::collections::BTreeMap;

use control::{CameraId, LedgerOp, Timestamp};
use media::StreamId;
use tracing::{error, info};

use super::{CameraEntry, Engine, MAX_CAMERAS, Pending};
use crate::io::{Action, CameraSpec, Reply, WatchRefusal};
use crate::note::EndReason;
use crate::stream::{Rendition, Stream, StreamEvent};

impl Engine {
    /// Replaces the whole park. Cameras that stay keep their streams and viewers; viewers of those
    /// that go are closed and their leases ended. Cameras over [`MAX_CAMERAS`] are left out.
    pub fn handle_cameras(&mut self, specs: Vec<CameraSpec>, now: Timestamp) {
        if self.is_shutting_down {
            return;
        }
        if specs.len() > MAX_CAMERAS {
            error!(cameras = specs.len(), MAX_CAMERAS, "too many cameras, the last are left out");
        }
        let specs: BTreeMap<_, _> = specs
            .into_iter()
            .take(MAX_CAMERAS)
            .map(|spec| (spec.camera.id.clone(), spec))
            .collect();
        let gone: Vec<_> =
            self.cameras.keys().filter(|id| !specs.contains_key(*id)).cloned().collect();
        for camera in gone {
            self.remove_camera(&camera, now);
        }
        for spec in specs.into_values() {
            self.put_camera(spec, now);
        }
    }

    /// Ends all leases, peers and sources, and lets nothing begin any more.
    pub fn handle_shutdown(&mut self, now: Timestamp) {
        self.is_shutting_down = true;
        for (viewer, accepting) in std::mem::take(&mut self.accepting) {
            self.reply(accepting.request, Reply::Watch(Err(WatchRefusal::ShuttingDown)));
            self.actions.push_back(Action::CloseViewer { viewer });
        }
        self.end_all_holds(now);
        for stream in self.streams.values_mut() {
            stream.warm = false;
        }
        let sessions: Vec<_> = self.sessions.keys().cloned().collect();
        for reservation in sessions {
            self.end_session(&reservation, EndReason::Shutdown, now);
            self.apply(LedgerOp::Release(reservation), Pending::Release { request: None });
        }
        let streams: Vec<_> = self.streams.keys().copied().collect();
        for stream in streams {
            self.stop_stream(stream, now);
        }
    }

    fn put_camera(&mut self, spec: CameraSpec, now: Timestamp) {
        let id = spec.camera.id.clone();
        let Some(entry) = self.cameras.get(&id) else {
            let main = self.add_stream(&id, Rendition::Main);
            let sub = spec.camera.has_sub.then(|| self.add_stream(&id, Rendition::Sub));
            self.cameras.insert(id.clone(), CameraEntry { spec, main, sub });
            self.settle_camera(&id, now);
            return;
        };
        if entry.spec == spec {
            return;
        }
        let (main, sub) = (entry.main, entry.sub);
        let restarts = entry.spec.revision != spec.revision;
        let sub = match (sub, spec.camera.has_sub) {
            (Some(sub), false) => {
                self.remove_stream(sub, now);
                None
            }
            (None, true) => Some(self.add_stream(&id, Rendition::Sub)),
            (sub, _) => sub,
        };
        self.cameras.insert(id.clone(), CameraEntry { spec, main, sub });
        self.settle_camera(&id, now);
        if restarts {
            info!(camera_id = %id, "camera is reached differently, its source starts anew");
            self.restart_camera(&id, now);
        }
    }

    /// Brings a camera's streams in line with its definition.
    fn settle_camera(&mut self, id: &CameraId, now: Timestamp) {
        let Some(entry) = self.cameras.get(id) else {
            return;
        };
        let (main, close_after) = (entry.main, entry.spec.close_after);
        let keeps_warm = !entry.spec.on_demand;
        let streams: Vec<_> = entry.streams().collect();
        for stream in streams {
            let Some(stream) = self.streams.get_mut(&stream) else {
                continue;
            };
            stream.close_after = close_after;
            let was_wanted = stream.is_wanted();
            // The smaller picture is always on demand: keeping both would take twice the bandwidth.
            stream.warm = keeps_warm && stream.id == main;
            let (id, is_wanted) = (stream.id, stream.is_wanted());
            match (was_wanted, is_wanted) {
                (false, true) => self.drive(id, StreamEvent::Joined, now),
                (true, false) => self.drive(id, StreamEvent::Emptied, now),
                (true, true) | (false, false) => {}
            }
        }
    }

    fn restart_camera(&mut self, id: &CameraId, now: Timestamp) {
        let streams: Vec<_> =
            self.cameras.get(id).map(|c| c.streams().collect()).unwrap_or_default();
        for stream in streams {
            self.stop_stream(stream, now);
            if self.streams.get(&stream).is_some_and(Stream::is_wanted) {
                self.drive(stream, StreamEvent::Joined, now);
            }
        }
    }

    fn remove_camera(&mut self, id: &CameraId, now: Timestamp) {
        let Some(entry) = self.cameras.remove(id) else {
            return;
        };
        info!(camera_id = %id, "camera is removed");
        for stream in entry.streams() {
            self.remove_stream(stream, now);
        }
    }

    fn add_stream(&mut self, camera: &CameraId, rendition: Rendition) -> StreamId {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        self.streams.insert(id, Stream::new(id, camera.clone(), rendition));
        id
    }

    /// Ends everything of a stream and forgets it.
    fn remove_stream(&mut self, id: StreamId, now: Timestamp) {
        self.end_holds(id, None, now);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.warm = false;
        let reservations: Vec<_> = stream.reservations.iter().cloned().collect();
        for reservation in reservations {
            self.end_session(&reservation, EndReason::CameraRemoved, now);
            self.apply(LedgerOp::Release(reservation), Pending::Release { request: None });
        }
        let expected = self.streams.get_mut(&id).map(|stream| std::mem::take(&mut stream.expected));
        for reservation in expected.unwrap_or_default() {
            self.stay(&reservation);
        }
        self.stop_stream(id, now);
        self.streams.remove(&id);
    }
}
