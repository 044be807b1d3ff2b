//! What the fuzz targets in `fuzz/` feed: one function a target, each with what must hold for any
//! input whatever. The tests below feed the committed inputs, so that nothing found is found twice.
//!
//! An input that is several packets is read by [`pieces`]. A panic is a finding.

mod demultiplexer;
mod h264;
mod h265;
mod rtcp;
mod rtp;
mod sdp_answer;
mod sdp_offer;

use std::sync::LazyLock;
use std::time::Instant;

pub use demultiplexer::demultiplexer;
pub use h264::h264;
pub use h265::h265;
pub use rtcp::rtcp;
pub use rtp::rtp;
pub use sdp_answer::sdp_answer;
pub use sdp_offer::sdp_offer;

/// Packets of one input, at most: more of them find nothing that these do not, and take long.
const PIECES_MAX: usize = 64;

/// Takes an input apart into packets, each with a byte that says what is done with it. The last one
/// may be shorter than it says.
///
/// ```text
/// | manner | length (2, big-endian) | packet | manner | ...
/// ```
fn pieces(mut data: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let [manner, high, low, rest @ ..] = data
        && found.len() < PIECES_MAX
    {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (packet, behind) = rest.split_at(len);
        found.push((*manner, packet));
        data = behind;
    }
    found
}

/// When every run begins.
static START: LazyLock<Instant> = LazyLock::new(start);

#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the committed inputs of a target.
    fn replay(target: &str, feed: fn(&[u8])) {
        let corpus =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let mut inputs: Vec<_> =
            corpus.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} is empty", corpus.display());
        for input in inputs {
            println!("{}", input.display());
            feed(&std::fs::read(&input).unwrap());
        }
    }

    #[test]
    fn inputs_of_the_demultiplexer() {
        replay("demultiplexer", demultiplexer);
    }

    #[test]
    fn inputs_of_h264() {
        replay("h264", h264);
    }

    #[test]
    fn inputs_of_h265() {
        replay("h265", h265);
    }

    #[test]
    fn inputs_of_rtcp() {
        replay("rtcp", rtcp);
    }

    #[test]
    fn inputs_of_rtp() {
        replay("rtp", rtp);
    }

    #[test]
    fn inputs_of_the_sdp_answer() {
        replay("sdp_answer", sdp_answer);
    }

    #[test]
    fn inputs_of_the_sdp_offer() {
        replay("sdp_offer", sdp_offer);
    }
}
