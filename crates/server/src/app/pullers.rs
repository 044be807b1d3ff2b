//! The tasks that pull cameras: one attempt a task, each alone with its camera.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use control::CameraId;
use engine::{Rendition, SourceFailure};
use media::{Frame, StreamId};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{Instrument, debug, info_span};

use super::actor::Message;
use crate::cluster::{Cluster, Place};
use crate::ingest::{self, GroupMeter, Output, Reach, RtspTransport, SourceFormat, SourceUrl};
use crate::net::MediaPlane;

/// All running attempts, at most one a stream.
pub(super) struct Pullers {
    media: MediaPlane,
    messages: mpsc::UnboundedSender<Message>,
    cluster: Option<Cluster>,
    running: HashMap<StreamId, Puller>,
    tasks: JoinSet<SourceFailure>,
    /// Packets lost on the way from each stream's camera, over all attempts.
    lost: HashMap<StreamId, Arc<AtomicU64>>,
}

struct Puller {
    attempt: u64,
    task: AbortHandle,
    output: Arc<StreamOutput>,
    keyframe_wanted: Arc<Notify>,
}

/// How a camera is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) reach: Reach,
    pub(super) transport: RtspTransport,
}

/// An attempt that ended by itself.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) stream: StreamId,
    pub(super) attempt: u64,
    pub(super) failure: SourceFailure,
}

impl Pullers {
    pub(super) fn new(
        media: MediaPlane,
        messages: mpsc::UnboundedSender<Message>,
        cluster: Option<Cluster>,
    ) -> Self {
        Self {
            media,
            messages,
            cluster,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            lost: HashMap::new(),
        }
    }

    /// Starts an attempt. One that still runs on the stream is ended.
    pub(super) fn start(
        &mut self,
        stream: StreamId,
        (camera, rendition): (CameraId, Rendition),
        attempt: u64,
        url: SourceUrl,
        way: Way,
    ) {
        self.stop(stream);
        // Whatever is logged of an attempt, by us or by a library, names the camera.
        let span = info_span!("source", camera_id = %camera);
        let output = Arc::new(StreamOutput {
            stream,
            camera,
            attempt,
            media: self.media.clone(),
            messages: self.messages.clone(),
            lost: Arc::clone(self.lost.entry(stream).or_default()),
            format: Mutex::new(None),
            live: OnceLock::new(),
            flow: Mutex::default(),
        });
        let keyframe_wanted = Arc::new(Notify::new());
        let (sink, wanted) = (Arc::clone(&output), Arc::clone(&keyframe_wanted));
        let (cluster, camera) = (self.cluster.clone(), output.camera.clone());
        let attempt_at_it = async move {
            let Way { reach, transport } = way;
            let Some(cluster) = cluster else {
                return ingest::pull(&url, reach, transport, sink, wanted).await;
            };
            let place = Place { camera: &camera, rendition, source: &url, reach, transport };
            cluster.pull(&place, sink, wanted).await
        };
        let task = self.tasks.spawn(attempt_at_it.instrument(span));
        self.running.insert(stream, Puller { attempt, task, output, keyframe_wanted });
    }

    /// Ends the attempt that runs on a stream, if any. No frame of it is published any more.
    pub(super) fn stop(&mut self, stream: StreamId) {
        if let Some(puller) = self.running.remove(&stream) {
            puller.output.stop();
            puller.task.abort();
        }
    }

    pub(super) fn ask_for_keyframe(&self, stream: StreamId) {
        if let Some(puller) = self.running.get(&stream) {
            puller.keyframe_wanted.notify_one();
        }
    }

    /// What the stream's source sends, once it is live.
    pub(super) fn format(&self, stream: StreamId) -> Option<SourceFormat> {
        self.running.get(&stream)?.output.format()
    }

    /// How long a stream has given pictures, and what; `None` before the first.
    pub(super) fn live(&self, stream: StreamId) -> Option<(SourceFormat, Duration)> {
        let output = &self.running.get(&stream)?.output;
        Some((output.format()?, output.live.get()?.elapsed()))
    }

    /// From one keyframe to the next, once two have come; what its source has sent last.
    pub(super) fn keyframe_interval(&self, stream: StreamId) -> Option<Duration> {
        self.running.get(&stream)?.output.keyframe_interval()
    }

    /// Packets lost on the way from the camera since the start.
    pub(super) fn lost(&self, stream: StreamId) -> u64 {
        self.lost.get(&stream).map_or(0, |lost| lost.load(Ordering::Relaxed))
    }

    /// The next task that ends, `None` while there is none. `Some(None)`: one that was stopped.
    pub(super) async fn next_ended(&mut self) -> Option<Option<Ended>> {
        let joined = self.tasks.join_next_with_id().await?;
        Some(self.ended(joined))
    }

    /// Waits for the stopped tasks to be gone.
    pub(super) fn into_tasks(self) -> JoinSet<SourceFailure> {
        self.tasks
    }

    fn ended(&mut self, joined: Result<(Id, SourceFailure), JoinError>) -> Option<Ended> {
        let (task, failure) = match joined {
            Ok(ended) => ended,
            Err(error) if error.is_cancelled() => return None,
            // A bug, which ends this attempt and nothing else.
            Err(error) => {
                let detail = "reading it failed inside the server".to_owned();
                (error.id(), SourceFailure::Protocol { detail })
            }
        };
        let stream = self.running.values().find(|puller| puller.task.id() == task)?.output.stream;
        let puller = self.running.remove(&stream)?;
        puller.output.stop();
        Some(Ended { stream, attempt: puller.attempt, failure })
    }
}

/// Where one attempt puts what it has.
struct StreamOutput {
    stream: StreamId,
    camera: CameraId,
    attempt: u64,
    media: MediaPlane,
    messages: mpsc::UnboundedSender<Message>,
    lost: Arc<AtomicU64>,
    format: Mutex<Option<SourceFormat>>,
    /// When its first keyframe came.
    live: OnceLock<Instant>,
    /// Held while a frame is published, so that none comes after what follows a stop: it would bring a
    /// stream back that was removed, cached pictures and all.
    flow: Mutex<Flow>,
}

/// What passes.
#[derive(Debug, Default)]
struct Flow {
    /// An aborted task may still be inside a call; what it brings is not wanted any more.
    is_stopped: bool,
    groups: GroupMeter,
}

impl StreamOutput {
    fn format(&self) -> Option<SourceFormat> {
        *self.format.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No frame is published after this returned.
    fn stop(&self) {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner).is_stopped = true;
    }

    fn keyframe_interval(&self) -> Option<Duration> {
        let flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        flow.groups.last().map(|group| group.interval)
    }
}

impl Output for StreamOutput {
    fn frame(&self, frame: Frame) {
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        if !flow.is_stopped {
            flow.groups.handle_frame(&frame);
            self.media.publish(self.stream, frame);
        }
    }

    fn live(&self, format: SourceFormat) {
        self.live.get_or_init(Instant::now);
        let before = self.format.lock().unwrap_or_else(PoisonError::into_inner).replace(format);
        if before != Some(format) {
            let (stream, attempt, codec) = (self.stream, self.attempt, format.codec);
            debug!(camera_id = %self.camera, attempt, ?format, "camera sends");
            // Nobody listens any more only while the application ends.
            let _ = self.messages.send(Message::Live { stream, attempt, codec });
        }
    }

    fn lost(&self, packets: u64) {
        self.lost.fetch_add(packets, Ordering::Relaxed);
    }
}
