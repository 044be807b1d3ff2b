//! RTCP (RFC 3550 §6, RFC 4585, RFC 5104): our reports, and the viewers' feedback.

use crate::frame::NtpTime;

/// One report block of a receiver report (RFC 3550 §6.4.2).
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
    Nack { ssrc: u32, lost: Vec<u16> },
    /// Picture loss indication (RFC 4585 §6.3.1).
    PictureLoss { ssrc: u32 },
    /// Full intra request (RFC 5104 §4.3.1), one an entry.
    FullIntra { ssrc: u32, sequence: u8 },
    /// REMB (draft-alvestrand-rmcat-remb), bits a second.
    EstimatedBitrate { bitrate: u64 },
    /// The viewer leaves (RFC 3550 §6.6).
    Bye,
}

/// Why a compound packet could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtcpError {
    /// A length field runs over the end, or the version is not 2.
    #[error("malformed RTCP at byte {offset}")]
    Malformed { offset: usize },
}

/// Reads a compound packet; unknown packet types are passed over. Bounded: at most 256 entries.
pub fn parse(_packet: &[u8]) -> Result<Vec<Feedback>, RtcpError> {
    todo!()
}

/// What a sender report says (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy)]
pub struct SenderInfo {
    pub ssrc: u32,
    pub ntp: NtpTime,
    /// The same moment in the stream's RTP clock.
    pub rtp_timestamp: u32,
    /// Packets sent, wrapping.
    pub packets: u32,
    /// Payload bytes sent, wrapping.
    pub octets: u32,
}

/// Appends SR + SDES CNAME as one compound packet.
pub fn write_sender_report(_info: &SenderInfo, _cname: &str, _out: &mut Vec<u8>) {
    todo!()
}

/// Appends an empty RR + BYE with a reason as one compound packet (RFC 3550 §6.6).
pub fn write_bye(_ssrcs: &[u32], _reason: &str, _out: &mut Vec<u8>) {
    todo!()
}

/// Middle 32 bits of an NTP time, as in LSR (RFC 3550 §6.4.1).
pub fn compact_ntp(_ntp: NtpTime) -> u32 {
    todo!()
}
