//! Cameras of the run: they are pulled, deliver, and fail.

use std::sync::Arc;

use control::{Camera, CameraId, SourceId};
use engine::{CameraSpec, Rendition, SourceEvent, SourceFailure};
use media::packetise::packetise;
use media::{Codec, Frame, MediaKind, StreamId};

use super::{Event, World};
use crate::clock::SimTime;
use crate::picture::{sound, units};
use crate::plan::{CameraPlan, Fault, OperatorAct, Refusal};
use crate::random::Random;

/// After so long without a packet the ingest takes a camera for lost.
const SILENCE_US: u64 = 5_000_000;
/// How much later than its capture a frame may be handed over.
const DELIVERY_JITTER_US: u64 = 5_000;
/// The length of a packet of sound.
const SOUND_US: u64 = 60_000;

/// A camera.
pub(super) struct VirtualCamera {
    pub(super) id: CameraId,
    pub(super) plan: CameraPlan,
    pub(super) is_present: bool,
    pub(super) on_demand: bool,
    revision: u64,
    down_until: SimTime,
    refuses: Option<(SimTime, Refusal)>,
    silent_until: SimTime,
    random: Random,
}

/// A running attempt at a camera.
pub(super) struct Pull {
    camera: usize,
    attempt: u64,
    epoch: u64,
    /// When picture 0 of this attempt was captured.
    base: SimTime,
    /// Added to the ticks since `base`.
    origin: u64,
    pictures: u64,
    sounds: u64,
    /// Pictures to the next keyframe.
    to_keyframe: u64,
    is_live: bool,
    /// The next picture, and the next sound, begin a new clock.
    begins: [bool; 2],
}

impl VirtualCamera {
    pub(super) fn new(number: usize, plan: CameraPlan, random: Random) -> Self {
        let id = CameraId::parse(&format!("cam-{number}")).expect("it is an id by its making");
        Self {
            id,
            is_present: true,
            on_demand: plan.on_demand,
            plan,
            revision: 0,
            down_until: SimTime::default(),
            refuses: None,
            silent_until: SimTime::default(),
            random,
        }
    }

    fn spec(&self) -> CameraSpec {
        let source = format!("SOURCE_{}", self.plan.source);
        let camera = Camera {
            id: self.id.clone(),
            name: String::new(),
            name_ar: String::new(),
            location: String::new(),
            source: SourceId::parse(&source).expect("it is an id by its making"),
            has_sub: self.plan.has_sub,
        };
        CameraSpec {
            camera,
            on_demand: self.on_demand,
            close_after: self.plan.close_after,
            revision: self.revision,
        }
    }

    fn unreachable(&self) -> SourceFailure {
        let (address, detail) = (self.id.to_string(), "no answer".to_owned());
        SourceFailure::Unreachable { address, detail }
    }

    /// Why it takes no new connection, if it takes none.
    fn refusal(&self, now: SimTime) -> Option<SourceFailure> {
        if now < self.down_until {
            return Some(self.unreachable());
        }
        let (_, refusal) = self.refuses.filter(|(until, _)| now < *until)?;
        Some(match refusal {
            Refusal::Password => SourceFailure::Unauthorized,
            Refusal::Path => SourceFailure::NotFound { path: "/stream1".to_owned() },
            Refusal::Codec => SourceFailure::UnsupportedCodec { codec: "H.265".to_owned() },
        })
    }
}

impl World {
    /// Tells the server which cameras there are.
    pub(super) fn put_cameras(&mut self) {
        let present = self.cameras.iter().filter(|camera| camera.is_present);
        let specs = present.map(VirtualCamera::spec).collect();
        self.server.handle_cameras(specs, self.now);
        self.take_outputs();
    }

    pub(super) fn handle_operator(&mut self, act: OperatorAct) {
        if self.is_ending {
            return;
        }
        self.note(|| format!("operator: {act:?}"));
        match act {
            OperatorAct::StopSource(camera) => {
                let camera = self.cameras[camera].id.clone();
                self.ask_as_operator(engine::Request::StopSource { camera });
                return;
            }
            OperatorAct::Remove { camera, us } => {
                self.cameras[camera].is_present = false;
                self.after(us, Event::PutBack { camera });
            }
            OperatorAct::Revise(camera) => self.cameras[camera].revision += 1,
            OperatorAct::ToggleWarm(camera) => self.cameras[camera].on_demand ^= true,
        }
        self.put_cameras();
    }

    pub(super) fn start_pull(
        &mut self,
        stream: StreamId,
        camera: &CameraId,
        rendition: Rendition,
        attempt: u64,
    ) {
        let found = self.cameras.iter().position(|other| other.id == *camera);
        let Some(number) = found else {
            return self.fail(format!("there is no camera {camera} to pull"));
        };
        if rendition == Rendition::Sub && !self.cameras[number].plan.has_sub {
            return self.fail(format!("{camera} has no smaller picture"));
        }
        if self.pulls.contains_key(&stream) {
            return self.fail(format!("a second puller of {stream:?} was started"));
        }
        self.report.pulls += 1;
        self.next_epoch += 1;
        let random = &mut self.cameras[number].random;
        let pull = Pull {
            camera: number,
            attempt,
            epoch: self.next_epoch,
            base: SimTime::default(),
            origin: random.between(0, 1 << 40),
            pictures: 0,
            sounds: 0,
            to_keyframe: 0,
            is_live: false,
            begins: [true; 2],
        };
        self.pulls.insert(stream, pull);
        let wait = self.cameras[number].plan.connect_us;
        self.after(wait, Event::PullConnected { stream, attempt });
    }

    fn pull_of(&mut self, stream: StreamId, attempt: u64) -> Option<&mut Pull> {
        self.pulls.get_mut(&stream).filter(|pull| pull.attempt == attempt)
    }

    pub(super) fn handle_connected(&mut self, stream: StreamId, attempt: u64) {
        let now = self.now;
        let Some(pull) = self.pulls.get_mut(&stream).filter(|pull| pull.attempt == attempt) else {
            return;
        };
        let camera = &mut self.cameras[pull.camera];
        if let Some(failure) = camera.refusal(now) {
            return self.handle_pull_fails(stream, attempt, failure);
        }
        // The camera is somewhere in a group; ingest passes over what comes before a keyframe.
        pull.to_keyframe = camera.random.between(0, camera.plan.group - 1);
        pull.base = now;
        let has_sound = camera.plan.sound.is_some();
        self.after(0, Event::Picture { stream, attempt });
        if has_sound {
            self.after(0, Event::Sound { stream, attempt });
        }
    }

    pub(super) fn handle_picture(&mut self, stream: StreamId, attempt: u64) {
        let now = self.now;
        let Some(pull) = self.pulls.get_mut(&stream).filter(|pull| pull.attempt == attempt) else {
            return;
        };
        let camera = &mut self.cameras[pull.camera];
        let captured = pull.base + pull.pictures * camera.plan.frame_us;
        let ticks = pull.origin + pull.pictures * camera.plan.frame_us * 9 / 100;
        pull.pictures += 1;
        let next = pull.base
            + pull.pictures * camera.plan.frame_us
            + camera.random.between(0, DELIVERY_JITTER_US);
        let keyframe = pull.to_keyframe == 0;
        pull.to_keyframe = if keyframe { camera.plan.group - 1 } else { pull.to_keyframe - 1 };
        let becomes_live = keyframe && !pull.is_live;
        pull.is_live |= keyframe;
        let is_sent = pull.is_live && now >= camera.silent_until;
        if is_sent {
            let discontinuity = std::mem::take(&mut pull.begins[0]);
            let number = self.logs.entry(stream).or_default().of(MediaKind::Video).len();
            let frame = Frame {
                forwarded: None,
                codec: Codec::H264,
                ticks,
                captured: self.clock.ntp(captured),
                keyframe,
                discontinuity,
                units: units(stream, number, keyframe, &camera.plan.sizes, &mut camera.random),
            };
            let epoch = pull.epoch;
            if becomes_live {
                self.server.handle_source(
                    stream,
                    attempt,
                    SourceEvent::Live { codec: Codec::H264 },
                    now,
                );
            }
            self.publish(stream, &frame, epoch);
        } else if becomes_live {
            // Its first picture did not come through: live is what follows the next keyframe.
            pull.is_live = false;
        }
        self.at(next, Event::Picture { stream, attempt });
    }

    pub(super) fn handle_sound(&mut self, stream: StreamId, attempt: u64) {
        let now = self.now;
        let Some(pull) = self.pulls.get_mut(&stream).filter(|pull| pull.attempt == attempt) else {
            return;
        };
        let camera = &mut self.cameras[pull.camera];
        let Some(codec) = camera.plan.sound else { return };
        let captured = pull.base + pull.sounds * SOUND_US;
        let ticks =
            pull.origin + pull.sounds * SOUND_US * u64::from(codec.clock_rate()) / 1_000_000;
        pull.sounds += 1;
        let next =
            pull.base + pull.sounds * SOUND_US + camera.random.between(0, DELIVERY_JITTER_US);
        if pull.is_live && now >= camera.silent_until {
            let discontinuity = std::mem::take(&mut pull.begins[1]);
            let number = self.logs.entry(stream).or_default().of(MediaKind::Audio).len();
            let frame = Frame {
                forwarded: None,
                codec,
                ticks,
                captured: self.clock.ntp(captured),
                keyframe: true,
                discontinuity,
                units: vec![sound(codec, stream, number, &mut camera.random)],
            };
            let epoch = pull.epoch;
            self.publish(stream, &frame, epoch);
        }
        self.at(next, Event::Sound { stream, attempt });
    }

    fn publish(&mut self, stream: StreamId, frame: &Frame, epoch: u64) {
        let cut = Arc::new(packetise(frame));
        self.logs.entry(stream).or_default().publish(frame, &cut, epoch, self.now);
        self.server.publish(stream, cut, self.now);
        if frame.codec.kind() == MediaKind::Video {
            self.tell_judges_of_picture(stream);
        }
        self.take_outputs();
    }

    pub(super) fn request_keyframe(&mut self, stream: StreamId) {
        self.note(|| format!("{stream:?} is asked for a keyframe"));
        if let Some(pull) = self.pulls.get_mut(&stream)
            && self.cameras[pull.camera].plan.answers_keyframe_requests
        {
            pull.to_keyframe = 0;
        }
    }

    pub(super) fn handle_pull_fails(
        &mut self,
        stream: StreamId,
        attempt: u64,
        failure: SourceFailure,
    ) {
        if self.pull_of(stream, attempt).is_some() {
            self.pulls.remove(&stream);
            self.server.handle_source(stream, attempt, SourceEvent::Failed(failure), self.now);
            self.take_outputs();
        }
    }

    pub(super) fn handle_fault(&mut self, camera: usize, fault: Fault) {
        let now = self.now;
        self.note(|| format!("camera {camera}: {fault:?}"));
        let at = &mut self.cameras[camera];
        match fault {
            Fault::Down { us } => {
                at.down_until = at.down_until.max(now + us);
                self.lose_pulls(camera, 300_000, "the connection was reset");
            }
            Fault::Refuse { us, why } => at.refuses = Some((now + us, why)),
            Fault::Stall { us } => {
                at.silent_until = at.silent_until.max(now + us);
                if us > SILENCE_US {
                    self.lose_pulls(camera, 0, "no packet came for 5 s");
                }
            }
            Fault::ClockJump => self.jump_clocks(camera),
            Fault::Format => {
                let live =
                    self.pulls.iter().filter(|(_, pull)| pull.camera == camera && pull.is_live);
                let live: Vec<_> = live.map(|(stream, pull)| (*stream, pull.attempt)).collect();
                for (stream, attempt) in live {
                    self.server.handle_source(
                        stream,
                        attempt,
                        SourceEvent::Live { codec: Codec::H264 },
                        now,
                    );
                    self.take_outputs();
                }
            }
        }
    }

    /// All attempts at a camera end: `within` microseconds, or after the silence if that is 0.
    fn lose_pulls(&mut self, camera: usize, within_us: u64, detail: &str) {
        let running = self.pulls.iter().filter(|(_, pull)| pull.camera == camera);
        let running: Vec<_> =
            running.map(|(stream, pull)| (*stream, pull.attempt, pull.is_live)).collect();
        for (stream, attempt, is_live) in running {
            let wait = match within_us {
                0 => SILENCE_US,
                most => self.cameras[camera].random.between(0, most),
            };
            let failure = if is_live {
                SourceFailure::Lost { detail: detail.to_owned() }
            } else {
                self.cameras[camera].unreachable()
            };
            self.after(wait, Event::PullFails { stream, attempt, failure });
        }
    }

    /// The camera sets its clock; the group goes on, or not.
    fn jump_clocks(&mut self, camera: usize) {
        for pull in self.pulls.values_mut().filter(|pull| pull.camera == camera) {
            let random = &mut self.cameras[camera].random;
            self.next_epoch += 1;
            pull.epoch = self.next_epoch;
            pull.origin = random.between(0, 1 << 40);
            pull.begins = [true; 2];
            if random.percent(50) {
                pull.to_keyframe = 0;
            }
        }
    }
}
