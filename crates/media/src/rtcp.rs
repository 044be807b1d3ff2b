//! RTCP (RFC 3550 §6, RFC 4585, RFC 5104): our reports, and the viewers' feedback.
//!
//! Reads and writes bytes. It keeps no statistics, schedules no reports and knows no keys: packets
//! come in opened and go out to be sealed by [`srtp`](crate::srtp).
//!
//! Every packet begins alike (RFC 3550 §6.4.1); a compound is such packets end to end. The length
//! counts 32-bit words without the first.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |V=2|P|  count  |      type     |             length            |
//! ```

mod parse;
mod write;

pub use parse::{MAX_FEEDBACK_ENTRIES, MAX_LOST_ENTRIES, MAX_TRANSPORT_PACKETS, RtcpError, parse};
pub use write::{write_bye, write_sender_report};

use crate::frame::NtpTime;

/// Packet types (RFC 3550 §12.1, RFC 4585 §6.1).
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// One report block of a receiver report (RFC 3550 §6.4.2).
///
/// ```text
/// |                             SSRC                              |
/// | fraction lost |          cumulative lost, signed              |
/// |               extended highest sequence number                |
/// |                      interarrival jitter                      |
/// |                      last sender report                       |
/// |                delay since last sender report                 |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream that is reported on.
    pub ssrc: u32,
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Cumulative number lost, signed 24 bits.
    pub cumulative_lost: i32,
    /// Extended highest sequence number received.
    pub highest_sequence: u32,
    /// Interarrival jitter in clock ticks.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time; 0 if none.
    pub last_sender_report: u32,
    /// Delay since that report, in 1/65536 s.
    pub delay_since_last: u32,
}

/// What a viewer tells us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feedback {
    /// A report block of a receiver or sender report.
    Report(ReportBlock),
    /// Generic NACK (RFC 4585 §6.2.1): one lost sequence number an entry, already expanded.
    Nack {
        /// The stream that packets are missing of.
        ssrc: u32,
        /// The missing sequence numbers in the order named, at most [`MAX_LOST_ENTRIES`]; never
        /// empty, but a number may stand in it twice.
        lost: Vec<u16>,
    },
    /// Picture loss indication (RFC 4585 §6.3.1).
    PictureLoss {
        /// The stream that needs a keyframe.
        ssrc: u32,
    },
    /// Full intra request (RFC 5104 §4.3.1), one an entry.
    FullIntra {
        /// The stream that needs a keyframe.
        ssrc: u32,
        /// The command's number: the same again is a repetition, not a new request.
        sequence: u8,
    },
    /// REMB (draft-alvestrand-rmcat-remb), bits a second.
    EstimatedBitrate {
        /// Of all streams together; `u64::MAX` if the viewer's figure is beyond that.
        bitrate: u64,
    },
    /// Which packets arrived when, counted over all streams (transport-wide congestion control).
    Transport(TransportFeedback),
    /// The viewer leaves (RFC 3550 §6.6).
    Bye,
}

/// Arrivals by transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01
/// §3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportFeedback {
    /// The transport-wide sequence number that `arrivals` begins with.
    pub first_sequence: u16,
    /// When each packet arrived on the viewer's own clock, in [`TRANSPORT_TICK_MICROS`] and
    /// wrapping; `None` for one that did not. At most [`MAX_TRANSPORT_PACKETS`] in a compound.
    pub arrivals: Vec<Option<u32>>,
}

/// Microseconds of a tick of [`TransportFeedback::arrivals`].
pub const TRANSPORT_TICK_MICROS: u32 = 250;

/// What a sender report says (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// The stream that is reported on.
    pub ssrc: u32,
    /// The moment of the report on this server's wall clock; it comes back as
    /// [`ReportBlock::last_sender_report`], and lets a viewer play picture and sound together.
    pub ntp: NtpTime,
    /// The same moment in the stream's RTP clock.
    pub rtp_timestamp: u32,
    /// Packets sent, wrapping.
    pub packets: u32,
    /// Payload bytes sent, wrapping.
    pub octets: u32,
}

/// Middle 32 bits of an NTP time, as in LSR (RFC 3550 §6.4.1): seconds in the upper half, 1/65536 s
/// in the lower.
pub fn compact_ntp(ntp: NtpTime) -> u32 {
    (ntp.0 >> 16) as u32
}

#[cfg(test)]
mod tests;
