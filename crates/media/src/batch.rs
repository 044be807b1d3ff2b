//! Protected datagrams on their way out, grouped so that one system call sends many.
//!
//! ```text
//! bytes: | seg | seg | seg | sh | seg | seg | ...
//! runs:  |<---- run 0 -------->|<- run 1 ...        one destination a run
//! ```
//! A run is what UDP generic segmentation offload takes: datagrams of equal size to one
//! destination, of which only the last may be shorter. This module sends nothing.

pub use crate::route::{ConnectionId, Remote, Route, Transport};

/// The kernel takes at most 64 segments a call (`UDP_MAX_SEGMENTS`, raised to 128 in later ones).
const MAX_SEGMENTS: usize = 64;
/// A run must fit one UDP datagram's length field with its headers: 65,535 - 8 - 40.
const MAX_RUN_BYTES: usize = 65_487;

/// Datagrams to one destination that one call can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where from and where to.
    pub route: Route,
    /// Where the run begins in [`Batch::bytes`].
    pub start: usize,
    /// Bytes of all its datagrams.
    pub len: usize,
    /// Size of every datagram but the last, which may be shorter.
    pub segment: usize,
    /// How many datagrams.
    pub count: usize,
}

/// A bounded pile of datagrams. Its buffers are reused.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    /// Nothing can be added to the newest run: its last datagram was shorter.
    sealed: bool,
    /// There is a run that goes by TCP.
    mixed: bool,
}

impl Batch {
    /// All datagrams, end to end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The runs in sending order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether every run goes by UDP, so that one call can send them all.
    pub fn is_udp_only(&self) -> bool {
        !self.mixed
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
        self.sealed = false;
        self.mixed = false;
    }

    /// Ends the newest run, so that the next datagram begins one.
    pub fn end_run(&mut self) {
        self.sealed = true;
    }

    /// Adds what `write` appends as one datagram. On an error nothing is added.
    pub fn add<E>(
        &mut self,
        route: &Route,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        let len = self.bytes.len() - start;
        if !self.extend_run(route, len) {
            self.runs.push(Run { route: *route, start, len, segment: len, count: 1 });
            self.sealed = false;
            self.mixed |= route.transport != Transport::Udp;
        }
        Ok(())
    }

    fn extend_run(&mut self, route: &Route, len: usize) -> bool {
        let Some(run) = self.runs.last_mut() else { return false };
        let fits = !self.sealed
            && run.route == *route
            && len <= run.segment
            && run.count < MAX_SEGMENTS
            && run.len + len <= MAX_RUN_BYTES;
        if fits {
            self.sealed = len < run.segment;
            run.len += len;
            run.count += 1;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use proptest::prelude::*;

    fn route(port: u16) -> Route {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Route::new(local(1), local(port))
    }

    fn add(batch: &mut Batch, port: u16, len: usize) {
        batch
            .add(&route(port), |out| {
                out.extend(std::iter::repeat_n(0, len));
                Ok::<(), ()>(())
            })
            .unwrap();
    }

    #[test]
    fn a_shorter_datagram_ends_its_run() {
        let mut batch = Batch::default();
        for len in [1200, 1200, 700, 1200] {
            add(&mut batch, 5, len);
        }
        let counts: Vec<usize> = batch.runs().iter().map(|run| run.count).collect();
        assert_eq!(counts, [3, 1]);
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let mut batch = Batch::default();
        add(&mut batch, 5, 10);
        let failed = batch.add(&route(5), |out| {
            out.push(1);
            Err(())
        });
        assert_eq!((failed, batch.bytes().len(), batch.runs().len()), (Err(()), 10, 1));
    }

    #[test]
    fn a_connection_and_a_datagram_to_one_address_are_two_runs() {
        let mut batch = Batch::default();
        add(&mut batch, 5, 10);
        assert!(batch.is_udp_only());
        let by_tcp = Route { transport: Transport::Tcp(ConnectionId(1)), ..route(5) };
        let one_byte = |out: &mut Vec<u8>| {
            out.push(1);
            Ok::<(), ()>(())
        };
        batch.add(&by_tcp, one_byte).unwrap();
        assert!(!batch.is_udp_only() && batch.runs().len() == 2);
        batch.clear();
        assert!(batch.is_udp_only());
    }

    proptest! {
        #[test]
        fn every_run_is_sendable(datagrams in proptest::collection::vec((1u16..3, 1usize..1300), 1..400)) {
            let mut batch = Batch::default();
            for (port, len) in &datagrams {
                add(&mut batch, *port, *len);
            }
            let mut sent = Vec::new();
            for run in batch.runs() {
                prop_assert!(run.count <= MAX_SEGMENTS && run.len <= MAX_RUN_BYTES);
                let last = run.len - run.segment * (run.count - 1);
                prop_assert!(last >= 1 && last <= run.segment);
                let sizes = std::iter::repeat_n(run.segment, run.count - 1).chain([last]);
                sent.extend(sizes.map(|len| (run.route.destination.port(), len)));
            }
            prop_assert_eq!(sent, datagrams);
        }
    }
}
