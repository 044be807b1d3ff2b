//! What happens in a run, drawn from its seed before it starts: who comes and goes, what breaks.

use std::time::Duration;

use control::{Class, Quality, Unit};
use media::Codec;

use crate::clock::SimTime;
use crate::network::Path;
use crate::picture::Sizes;
use crate::random::Random;

/// Viewers come and cameras fail in this time at most; then everything ends.
const ACTIVE_MS_MAX: u64 = 25_000;

/// A worker that waits longer for a processor than this has worse troubles than a viewer's picture.
const STALL_US_MAX: u64 = 300_000;

/// The largest keyframe of a usual camera.
const LIGHT_KEYFRAME_BYTES_MAX: u64 = 90_000;

/// When everybody comes and goes: a hundred come in a second, none stays longer than one, and the
/// quota lets in whoever waits for a lease to run out after that.
const CHURN_JOIN_US: u64 = 10_000;
const CHURN_STAY_US_MAX: u64 = 1_000_000;
const CHURN_LIMIT: u32 = 5_000;

/// A frame of 300 packets; 60 of them a second are more than the 15,000 packets that a viewer is paced.
const FLOOD_BYTES: u64 = 350_000;

/// A run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) active_until: SimTime,
    pub(crate) unit: Unit,
    pub(crate) limit_total: u32,
    pub(crate) limit_of_source: [u32; 2],
    pub(crate) cameras: Vec<CameraPlan>,
    pub(crate) viewers: Vec<ViewerPlan>,
    pub(crate) operator: Vec<(SimTime, OperatorAct)>,
    pub(crate) latency: Latency,
    pub(crate) ending: Ending,
    /// Between two forged or broken datagrams to the media port.
    pub(crate) noise_every_us: Option<u64>,
    /// The media worker gets no processor, from a time on and for so long.
    pub(crate) stalls: Vec<(SimTime, u64)>,
}

/// How long parts of the server may take to hear of each other, at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) ledger_us: u64,
    /// From the media plane to the engine.
    pub(crate) events_us: u64,
    /// From the engine to the handshake threads.
    pub(crate) commands_us: u64,
}

impl Latency {
    /// From the cause to all its effects, at most: an event, a ledger operation, a command, its event.
    pub(crate) const fn round_us(self) -> u64 {
        2 * (self.ledger_us + self.events_us + self.commands_us)
    }
}

/// A camera.
#[derive(Debug, Clone)]
pub(crate) struct CameraPlan {
    /// Which of the two sources owns it.
    pub(crate) source: usize,
    pub(crate) has_sub: bool,
    pub(crate) on_demand: bool,
    pub(crate) close_after: Duration,
    pub(crate) frame_us: u64,
    pub(crate) group: u64,
    pub(crate) sizes: Sizes,
    pub(crate) sound: Option<Codec>,
    pub(crate) connect_us: u64,
    pub(crate) answers_keyframe_requests: bool,
    pub(crate) faults: Vec<(SimTime, Fault)>,
}

/// What befalls a camera.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// It is gone for a while; whoever pulls it loses it.
    Down { us: u64 },
    /// It refuses new connections for a while.
    Refuse { us: u64, why: Refusal },
    /// It sends nothing for a while.
    Stall { us: u64 },
    /// Its clock jumps in the middle of a group.
    ClockJump,
    /// It announces another format.
    Format,
}

/// Why a camera refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    Password,
    Path,
    Codec,
}

impl CameraPlan {
    /// Whether what it sends in two seconds is more than a server keeps for repairs.
    pub(crate) const fn is_heavy(&self) -> bool {
        self.sizes.keyframe.1 > LIGHT_KEYFRAME_BYTES_MAX
    }

    /// Whether it sends more than one viewer is paced: viewers lose whole groups.
    pub(crate) const fn floods(&self) -> bool {
        self.sizes.other.0 >= FLOOD_BYTES
    }
}

/// A person at a browser.
#[derive(Debug, Clone)]
pub(crate) struct ViewerPlan {
    /// With ICE and DTLS.
    pub(crate) is_full: bool,
    pub(crate) camera: usize,
    pub(crate) quality: Quality,
    pub(crate) class: Class,
    pub(crate) join_at: SimTime,
    pub(crate) path: Path,
    pub(crate) request_us: u64,
    pub(crate) manner: Manner,
    pub(crate) stay_us: u64,
    pub(crate) leave: Leave,
    /// How often it comes back, after leaving or being refused.
    pub(crate) returns: u64,
    pub(crate) rewatch_after_us: Option<u64>,
    pub(crate) move_after_us: Option<u64>,
    pub(crate) ask_after_us: Option<u64>,
}

/// What a viewer does with its reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Watch,
    /// It never watches and never speaks again.
    Forget,
    /// It sends heartbeats and watches later.
    Linger,
    /// Its offer cannot be answered.
    BadOffer,
    /// It takes the answer and never connects.
    Ghost,
}

/// How a viewer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// WHEP DELETE.
    EndWatch,
    /// The reservation is released.
    Release,
    /// BYE, or DTLS close_notify.
    Goodbye,
    /// The network cable is pulled.
    Vanish,
}

/// What an operator does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OperatorAct {
    StopSource(usize),
    /// A camera goes, and comes back after a while.
    Remove {
        camera: usize,
        us: u64,
    },
    /// A camera's address changes.
    Revise(usize),
    /// A camera is kept warm, or not.
    ToggleWarm(usize),
}

/// How the run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Viewers leave as planned, cameras are let go.
    Leave,
    /// All viewers vanish at once.
    Vanish,
    /// All cameras are removed.
    RemoveCameras,
    /// The server shuts down.
    Shutdown,
}

impl Plan {
    pub(crate) fn draw(mut random: Random) -> Self {
        let active_until = SimTime::from_ms(random.between(6_000, ACTIVE_MS_MAX));
        let is_flood = random.percent(1);
        let is_heavy = random.percent(2);
        let cameras: Vec<_> = (0..random.between(1, 3))
            .map(|_| camera(&mut random.fork(), active_until, is_heavy))
            .collect();
        let viewers = viewers(&mut random.fork(), cameras.len(), active_until, is_heavy);
        let with_latency = random.percent(60);
        let up_to = |random: &mut Random, ms: u64| {
            if with_latency { random.between(0, ms * 1000) } else { 0 }
        };
        let latency = Latency {
            ledger_us: up_to(&mut random, 20),
            events_us: up_to(&mut random, 20),
            commands_us: up_to(&mut random, 20),
        };
        let unit = if random.percent(75) { Unit::Viewer } else { Unit::Camera };
        let limits: &[u32] = match unit {
            Unit::Viewer => &[1, 3, 6, 50, 50, 50],
            Unit::Camera => &[1, 2, 50],
        };
        let mut plan = Self {
            active_until,
            unit,
            limit_total: *random.pick(&[4, 100, 100]),
            limit_of_source: [*random.pick(limits), *random.pick(limits)],
            operator: operator(&mut random.fork(), cameras.len(), active_until),
            cameras,
            viewers,
            latency,
            ending: *random.pick(&[
                Ending::Leave,
                Ending::Leave,
                Ending::Vanish,
                Ending::RemoveCameras,
                Ending::Shutdown,
            ]),
            noise_every_us: random.percent(30).then(|| random.between(5_000, 200_000)),
            stalls: Vec::new(),
        };
        if random.percent(25) {
            let stall =
                |_| (within(&mut random, active_until), random.between(20_000, STALL_US_MAX));
            plan.stalls = (0..3).map(stall).collect();
        }
        if is_flood {
            plan.make_flood();
        }
        // Drawn last: what seeds drew before there were classes stays as it was.
        if random.percent(50) {
            for viewer in &mut plan.viewers {
                viewer.class = Class::new(*random.pick(&[0, 0, 1, 2, 9])).unwrap_or_default();
            }
        }
        plan
    }

    /// So many people come to one camera, watch for a moment and go, by all the ways there are.
    pub(crate) fn draw_churn(mut random: Random, joins: u64) -> Self {
        let mut plan = Self::draw(random.fork());
        plan.active_until = SimTime(joins * CHURN_JOIN_US + CHURN_STAY_US_MAX);
        plan.unit = Unit::Viewer;
        plan.limit_total = CHURN_LIMIT;
        plan.limit_of_source = [CHURN_LIMIT; 2];
        plan.operator.clear();
        plan.noise_every_us = None;
        plan.ending = Ending::Leave;
        plan.cameras.truncate(1);
        for camera in &mut plan.cameras {
            (camera.frame_us, camera.group) = (1_000_000 / 5, 10);
            camera.sizes = Sizes { keyframe: (300, 3_000), other: (10, 900), slices_max: 1 };
            camera.faults.clear();
        }
        plan.viewers = (0..joins)
            .map(|number| {
                let mut random = random.fork();
                let mut one = viewer(&mut random, 1, SimTime::default(), false);
                one.join_at = SimTime(number * CHURN_JOIN_US);
                one.path = Path { delay_us: 1_000, ..Path::default() };
                one.stay_us = random.between(50_000, CHURN_STAY_US_MAX);
                one.returns = 0;
                one.rewatch_after_us = None;
                one
            })
            .collect();
        plan
    }

    /// How much later than otherwise a packet may leave.
    pub(crate) fn longest_stall_us(&self) -> u64 {
        // They may follow each other, but the last one to end lets everything out.
        self.stalls.iter().map(|(_, us)| us).sum()
    }

    /// One camera sends one viewer more than it is paced, for a moment: every second takes some
    /// 25,000 packets.
    fn make_flood(&mut self) {
        self.cameras.truncate(1);
        self.viewers.truncate(1);
        self.operator.clear();
        self.noise_every_us = None;
        self.stalls.clear();
        self.ending = Ending::Leave;
        for camera in &mut self.cameras {
            camera.has_sub = false;
            camera.on_demand = true;
            camera.close_after = Duration::ZERO;
            camera.frame_us = 1_000_000 / 60;
            camera.group = 30;
            let bytes = (FLOOD_BYTES, 2 * FLOOD_BYTES);
            camera.sizes = Sizes { keyframe: bytes, other: bytes, slices_max: 1 };
            camera.faults.clear();
        }
        for viewer in &mut self.viewers {
            viewer.is_full = false;
            viewer.camera = 0;
            viewer.path = Path { jitter_us: viewer.path.jitter_us, ..Path::default() };
            viewer.manner = Manner::Watch;
            viewer.stay_us = 3_500_000;
            viewer.leave = Leave::EndWatch;
            viewer.returns = 0;
            viewer.rewatch_after_us = None;
            viewer.move_after_us = None;
        }
    }
}

fn camera(random: &mut Random, active_until: SimTime, is_heavy: bool) -> CameraPlan {
    let fps = if is_heavy { random.between(20, 60) } else { *random.pick(&[4, 5, 8, 10, 15]) };
    let sizes = if is_heavy {
        Sizes { keyframe: (20_000, 500_000), other: (100, 150_000), slices_max: 1 }
    } else {
        Sizes {
            keyframe: (300, *random.pick(&[4_000, 20_000, LIGHT_KEYFRAME_BYTES_MAX])),
            other: (10, *random.pick(&[900, 3_000, 9_000])),
            slices_max: random.between(1, 3),
        }
    };
    let fault_count = random.between(0, 3);
    CameraPlan {
        source: random.between(0, 1) as usize,
        has_sub: random.percent(30),
        on_demand: random.percent(85),
        close_after: Duration::from_millis(*random.pick(&[0, 500, 5_000])),
        frame_us: 1_000_000 / fps,
        group: fps * random.between(1, 4),
        sizes,
        sound: *random.pick(&[None, Some(Codec::Opus), Some(Codec::Pcmu), Some(Codec::Pcma)]),
        connect_us: random.between(0, 900_000),
        answers_keyframe_requests: random.percent(30),
        faults: (0..fault_count).map(|_| (within(random, active_until), fault(random))).collect(),
    }
}

fn fault(random: &mut Random) -> Fault {
    let us = random.between(100_000, 12_000_000);
    match random.between(0, 6) {
        0 | 1 => Fault::Down { us },
        2 => Fault::Refuse {
            us,
            why: *random.pick(&[Refusal::Password, Refusal::Path, Refusal::Codec]),
        },
        3 => Fault::Stall { us },
        4 | 5 => Fault::ClockJump,
        _ => Fault::Format,
    }
}

fn viewers(
    random: &mut Random,
    cameras: usize,
    active_until: SimTime,
    is_heavy: bool,
) -> Vec<ViewerPlan> {
    let is_storm = random.percent(15) && !is_heavy;
    let light = match (is_heavy, is_storm) {
        (true, _) => random.between(1, 2),
        (false, true) => random.between(15, 40),
        (false, false) => random.between(1, 9),
    };
    let full = if random.percent(35) && !is_heavy { random.between(1, 2) } else { 0 };
    let storm_at = SimTime(random.between(0, active_until.0 / 2));
    (0..light + full)
        .map(|number| {
            let mut random = random.fork();
            let mut plan = viewer(&mut random, cameras, active_until, number >= light);
            if is_heavy {
                // So many packets out of order would take the time of a hundred other runs.
                plan.path.disorder = false;
                plan.path.loss_ppm = plan.path.loss_ppm.min(1_000);
            }
            if is_storm {
                plan.camera = 0;
                plan.join_at = storm_at;
                plan.stay_us = plan.stay_us.min(4_000_000);
            }
            plan
        })
        .collect()
}

fn viewer(random: &mut Random, cameras: usize, active_until: SimTime, is_full: bool) -> ViewerPlan {
    let join_at = within(random, active_until);
    let seldom = |random: &mut Random, percent| {
        random.percent(percent).then(|| random.between(100_000, 8_000_000))
    };
    let manners = [Manner::Forget, Manner::Linger, Manner::BadOffer, Manner::Ghost];
    ViewerPlan {
        is_full,
        camera: random.between(0, cameras as u64 - 1) as usize,
        quality: *random.pick(&[Quality::Auto, Quality::High, Quality::Medium, Quality::Low]),
        class: Class::LOWEST,
        join_at,
        path: path(random, join_at),
        request_us: random.between(100, 40_000),
        manner: if random.percent(85) { Manner::Watch } else { *random.pick(&manners) },
        stay_us: random.between(50_000, 15_000_000),
        leave: *random.pick(&[Leave::EndWatch, Leave::Release, Leave::Goodbye, Leave::Vanish]),
        returns: random.between(0, 2),
        rewatch_after_us: seldom(random, 10),
        move_after_us: seldom(random, 10),
        ask_after_us: seldom(random, 15),
    }
}

fn path(random: &mut Random, join_at: SimTime) -> Path {
    let mut path = Path {
        delay_us: *random.pick(&[100, 1_000, 20_000, 120_000]),
        jitter_us: *random.pick(&[0, 0, 500, 15_000, 60_000]),
        disorder: random.percent(30),
        repeat_ppm: *random.pick(&[0, 0, 0, 20_000]),
        ..Path::default()
    };
    if random.percent(45) {
        path.loss_ppm = *random.pick(&[1_000, 20_000, 100_000, 300_000]);
        if random.percent(25) {
            let from = join_at + random.between(0, 5_000_000);
            path.blackouts.push((from, from + random.between(100_000, 20_000_000)));
        }
    }
    path
}

fn operator(
    random: &mut Random,
    cameras: usize,
    active_until: SimTime,
) -> Vec<(SimTime, OperatorAct)> {
    let count = if random.percent(40) { random.between(1, 4) } else { 0 };
    let mut acts: Vec<_> = (0..count)
        .map(|_| {
            let camera = random.between(0, cameras as u64 - 1) as usize;
            let act = match random.between(0, 3) {
                0 => OperatorAct::StopSource(camera),
                1 => OperatorAct::Remove { camera, us: random.between(0, 5_000_000) },
                2 => OperatorAct::Revise(camera),
                _ => OperatorAct::ToggleWarm(camera),
            };
            (within(random, active_until), act)
        })
        .collect();
    acts.sort_by_key(|(at, _)| *at);
    acts
}

fn within(random: &mut Random, active_until: SimTime) -> SimTime {
    SimTime(random.between(0, active_until.0))
}
