//! Readers: viewers that take frames inside this process, such as those of the RTSP server.
//!
//! A reader is a peer without a handshake: it is connected from its first moment, keeps its lease alive
//! by [`crate::ViewerEvent::Alive`], and ends it with [`crate::ViewerEvent::Closed`].

use control::{CameraId, ReservationId, Timestamp};
use media::ViewerId;
use tracing::info;

use super::Engine;
use crate::io::{Action, Reader, Reply, RequestId, WatchRefusal};
use crate::note::Note;
use crate::session::SessionEvent;
use crate::stream::StreamEvent;

impl Engine {
    pub(super) fn read(
        &mut self,
        request: RequestId,
        reservation: ReservationId,
        camera: &CameraId,
        now: Timestamp,
    ) {
        let reader = self.may_watch(&reservation, camera).map(|stream| {
            let viewer = ViewerId(self.next_viewer);
            self.next_viewer += 1;
            Reader { viewer, stream }
        });
        let reader = reader.and_then(|reader| self.begin_reading(reader, reservation, now));
        self.reply(request, Reply::Read(reader));
    }

    fn begin_reading(
        &mut self,
        reader: Reader,
        reservation: ReservationId,
        now: Timestamp,
    ) -> Result<Reader, WatchRefusal> {
        let Reader { viewer, stream } = reader;
        let session = self.sessions.get_mut(&reservation).ok_or(WatchRefusal::ReservationEnded)?;
        session.state = session.state.on(SessionEvent::Accepted);
        session.forget_peer();
        session.is_reader = true;
        session.waits = false;
        if let Some(earlier) = session.viewer.replace(viewer) {
            let camera_id = &session.reservation.camera;
            info!(%camera_id, reservation_id = %reservation, "a new connection takes the place of the earlier one");
            self.viewers.remove(&earlier);
            self.actions.push_back(Action::CloseViewer { viewer: earlier });
        }
        self.viewers.insert(viewer, reservation.clone());
        self.note(&reservation, Note::Reading { viewer });
        // Where a browser before it was going, it does not go.
        self.settle_expectation(&reservation, now);
        // A source that an operator stopped returns with the next viewer.
        self.drive(stream, StreamEvent::Joined, now);
        self.connected(viewer, 0, now);
        Ok(reader)
    }
}
