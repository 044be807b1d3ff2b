//! What the worlds of several tests have in common.

use std::net::SocketAddr;
use std::time::Instant;

use media::batch::Batch;
use media::fanout::Fanout;
use media::peers::PeersOutput;

/// A world in virtual time.
pub(crate) trait World {
    /// One millisecond: everything that is on the wire arrives.
    fn step(&mut self);

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool)
    where
        Self: Sized,
    {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("not reached within 10 s of virtual time: {what}");
    }
}

/// All that a fan-out has to send, with where it goes.
pub(crate) fn sent(fanout: &mut Fanout) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut sent = Vec::new();
    let mut batch = Batch::default();
    loop {
        batch.clear();
        fanout.poll_transmit(&mut batch);
        if batch.is_empty() {
            return sent;
        }
        for run in batch.runs() {
            let datagrams = batch.bytes()[run.start..run.start + run.len].chunks(run.segment);
            let destination = run.route.destination;
            sent.extend(datagrams.map(|datagram| (destination, datagram.to_vec())));
        }
    }
}

/// Tells a fan-out where a viewer is.
pub(crate) fn tell_place(fanout: &mut Fanout, told: PeersOutput, now: Instant) {
    match told {
        PeersOutput::PathProven { viewer, route } => fanout.handle_path(viewer, route),
        PeersOutput::PathForgotten { viewer, route } => {
            fanout.handle_path_forgotten(viewer, route);
        }
        PeersOutput::Moved { viewer, route } => fanout.handle_move(viewer, route, now),
        PeersOutput::Alive { .. } => {}
        PeersOutput::Transmit { .. } | PeersOutput::Attach(_) | PeersOutput::Closed { .. } => {
            panic!("it tells of no place: {told:?}")
        }
    }
}
