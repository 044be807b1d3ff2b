//! Reads what viewers send. Everything here comes from outside: it may be cut, wrong or hostile.

use super::{
    BYE, Feedback, PAYLOAD_FEEDBACK, RECEIVER_REPORT, ReportBlock, SENDER_REPORT,
    TRANSPORT_FEEDBACK, TransportFeedback,
};

/// Entries that [`parse`] returns at most. A full datagram of report blocks has some 60, one of FIR
/// entries some 180.
pub const MAX_FEEDBACK_ENTRIES: usize = 256;

/// Lost sequence numbers that [`parse`] returns at most, over all NACKs of a compound. A browser
/// keeps up to 1,000 packets to ask for (libwebrtc's `kMaxNackPackets`); a full datagram could name
/// six times that.
pub const MAX_LOST_ENTRIES: usize = 1_024;

/// Packets that [`parse`] tells the arrival of at most, over all transport-wide feedback of a
/// compound. Browsers report every 50 to 250 ms; so many packets in that time are 45 Mbit/s. Four
/// bytes can claim 8,191 lost ones.
pub const MAX_TRANSPORT_PACKETS: usize = 1_024;

const HEADER_BYTES: usize = 4;
const SSRC_BYTES: usize = 4;
const SENDER_INFO_BYTES: usize = 20;
const REPORT_BLOCK_BYTES: usize = 24;

/// Feedback message types (RFC 4585 §6.2 and §6.3, RFC 5104 §4.3).
const FORMAT_GENERIC_NACK: u8 = 1;
const FORMAT_TRANSPORT_WIDE: u8 = 15;
const FORMAT_PICTURE_LOSS: u8 = 1;
const FORMAT_FULL_INTRA: u8 = 4;
const FORMAT_APPLICATION: u8 = 15;

/// Why a compound packet could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtcpError {
    /// A length field runs over the end, or the version is not 2.
    #[error("malformed RTCP at byte {offset}")]
    Malformed {
        /// Where the malformed packet of the compound starts.
        offset: usize,
    },
}

/// Reads a compound packet; unknown packet types are passed over. Bounded: at most
/// [`MAX_FEEDBACK_ENTRIES`] entries, what exceeds them is left out.
///
/// A compound need not begin with a report (RFC 5506). Padding is left out wherever it stands.
pub fn parse(packet: &[u8]) -> Result<Vec<Feedback>, RtcpError> {
    if packet.is_empty() {
        return Err(RtcpError::Malformed { offset: 0 });
    }
    let mut found = Found::default();
    let mut offset = 0;
    while offset < packet.len() {
        offset +=
            read_packet(&packet[offset..], &mut found).ok_or(RtcpError::Malformed { offset })?;
    }
    Ok(found.entries)
}

/// What was found so far, within the bounds.
#[derive(Default)]
struct Found {
    entries: Vec<Feedback>,
    lost: usize,
    arrivals: usize,
}

impl Found {
    fn push(&mut self, entry: Feedback) {
        if self.entries.len() < MAX_FEEDBACK_ENTRIES {
            self.entries.push(entry);
        }
    }
}

/// Reads the first packet of `rest` and returns its length; `None` if it is malformed.
fn read_packet(rest: &[u8], found: &mut Found) -> Option<usize> {
    let header = rest.first_chunk::<HEADER_BYTES>()?;
    let [first, packet_type, ..] = *header;
    if first >> 6 != 2 {
        return None;
    }
    let len = (usize::from(u16::from_be_bytes([header[2], header[3]])) + 1) * 4;
    let body = rest.get(HEADER_BYTES..len)?;
    let body = if first & 0x20 == 0 { body } else { without_padding(body)? };
    let count = first & 0x1f;
    match packet_type {
        SENDER_REPORT => read_reports(body, SSRC_BYTES + SENDER_INFO_BYTES, count, found)?,
        RECEIVER_REPORT => read_reports(body, SSRC_BYTES, count, found)?,
        BYE => read_bye(body, count, found)?,
        TRANSPORT_FEEDBACK => read_transport_feedback(body, count, found)?,
        PAYLOAD_FEEDBACK => read_payload_feedback(body, count, found)?,
        // Source descriptions, XR, APP and whatever is invented later.
        _ => {}
    }
    Some(len)
}

/// The last byte counts the padding with itself. By RFC 3550 §6.4.1 that is a multiple of four;
/// libwebrtc and str0m pad transport-wide feedback by one to three bytes.
fn without_padding(body: &[u8]) -> Option<&[u8]> {
    let padding = usize::from(*body.last()?);
    if padding == 0 {
        return None;
    }
    body.get(..body.len().checked_sub(padding)?)
}

fn read_reports(body: &[u8], start: usize, count: u8, found: &mut Found) -> Option<()> {
    let end = start + usize::from(count) * REPORT_BLOCK_BYTES;
    // What follows the blocks is a profile's own extension (RFC 3550 §6.4.3).
    let blocks = body.get(start..end)?;
    for block in blocks.chunks_exact(REPORT_BLOCK_BYTES) {
        found.push(Feedback::Report(ReportBlock {
            ssrc: word(block, 0)?,
            fraction_lost: block[4],
            // Shifted up and down again to extend the sign of the 24 bits.
            cumulative_lost: (word(block, 4)? << 8) as i32 >> 8,
            highest_sequence: word(block, 8)?,
            jitter: word(block, 12)?,
            last_sender_report: word(block, 16)?,
            delay_since_last: word(block, 20)?,
        }));
    }
    Some(())
}

/// A BYE of no sources is allowed and says nothing (RFC 3550 §6.6).
fn read_bye(body: &[u8], count: u8, found: &mut Found) -> Option<()> {
    body.get(..usize::from(count) * SSRC_BYTES)?;
    if count > 0 {
        found.push(Feedback::Bye);
    }
    Some(())
}

/// Both kinds begin alike.
///
/// ```text
/// |                     SSRC of who reports                       |
/// |                     SSRC of the stream                        |
/// ```
fn read_transport_feedback(body: &[u8], format: u8, found: &mut Found) -> Option<()> {
    let ssrc = word(body, 4)?;
    match format {
        FORMAT_GENERIC_NACK => read_nack(ssrc, &body[8..], found),
        FORMAT_TRANSPORT_WIDE => read_arrivals(&body[8..], found)?,
        // Whatever is invented later.
        _ => {}
    }
    Some(())
}

/// ```text
/// |          PID                  |             BLP               |   once or more
/// ```
fn read_nack(ssrc: u32, entries: &[u8], found: &mut Found) {
    let mut lost = Vec::new();
    for pair in entries.chunks_exact(4) {
        let first = u16::from_be_bytes([pair[0], pair[1]]);
        let following = u16::from_be_bytes([pair[2], pair[3]]);
        // Bit i of the mask stands for the packet i + 1 after the first.
        let masked = (0..16u16).filter(|bit| following >> bit & 1 == 1);
        lost.push(first);
        lost.extend(masked.map(|bit| first.wrapping_add(bit + 1)));
        if found.lost + lost.len() >= MAX_LOST_ENTRIES {
            lost.truncate(MAX_LOST_ENTRIES - found.lost);
            break;
        }
    }
    if !lost.is_empty() {
        found.lost += lost.len();
        found.push(Feedback::Nack { ssrc, lost });
    }
}

/// What became of a packet (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1.1).
#[derive(Debug, Clone, Copy)]
enum Status {
    Missing,
    /// It has one byte in the list of deltas.
    SmallDelta,
    /// It has two, signed.
    LargeDelta,
}

/// ```text
/// |      base sequence number     |      packet status count      |
/// |                 reference time                | fb pkt. count |
/// |          packet chunk         |         packet chunk          |   as the count needs
/// |   recv delta  |   recv delta  | ...
/// ```
fn read_arrivals(entries: &[u8], found: &mut Found) -> Option<()> {
    let first = word(entries, 0)?;
    let count = (first & 0xffff) as usize;
    let room = MAX_TRANSPORT_PACKETS - found.arrivals;
    let (statuses, mut deltas) = read_statuses(entries.get(8..)?, count)?;
    // The reference counts 64 ms, which are 256 ticks: its 24 bits fill the upper ones.
    let mut time = word(entries, 4)? & 0xffff_ff00;
    let mut arrivals = Vec::with_capacity(statuses.len().min(room));
    for status in statuses.into_iter().take(room) {
        let delta = match status {
            Status::Missing => {
                arrivals.push(None);
                continue;
            }
            Status::SmallDelta => deltas.split_off_first().map(|byte| i32::from(*byte)),
            Status::LargeDelta => deltas.split_first_chunk().map(|(bytes, rest)| {
                deltas = rest;
                i32::from(i16::from_be_bytes(*bytes))
            }),
        };
        time = time.wrapping_add_signed(delta?);
        arrivals.push(Some(time));
    }
    if !arrivals.is_empty() {
        found.arrivals += arrivals.len();
        let first_sequence = (first >> 16) as u16;
        found.push(Feedback::Transport(TransportFeedback { first_sequence, arrivals }));
    }
    Some(())
}

/// The statuses of the first packets, as far as the bound lets, and what stands behind all chunks.
///
/// ```text
/// |0| S |   run length (13)       |   that many packets of status S
/// |1|0| 14 statuses of one bit    |   0: missing, 1: small delta
/// |1|1| 7 statuses of two bits    |
/// ```
fn read_statuses(mut rest: &[u8], count: usize) -> Option<(Vec<Status>, &[u8])> {
    let mut statuses = Vec::with_capacity(count.min(MAX_TRANSPORT_PACKETS));
    let mut read = 0;
    while read < count {
        let (chunk, behind) = rest.split_first_chunk()?;
        let chunk = u16::from_be_bytes(*chunk);
        rest = behind;
        let (many, status): (usize, &dyn Fn(usize) -> u16) = match chunk >> 14 {
            0 | 1 => (usize::from(chunk & 0x1fff), &|_| chunk >> 13 & 3),
            2 => (14, &|at| chunk >> (13 - at) & 1),
            _ => (7, &|at| chunk >> (12 - 2 * at) & 3),
        };
        let many = many.min(count - read);
        let room = MAX_TRANSPORT_PACKETS - statuses.len();
        for at in 0..many.min(room) {
            statuses.push(match status(at) {
                1 => Status::SmallDelta,
                2 => Status::LargeDelta,
                // 3 is reserved and has no delta.
                _ => Status::Missing,
            });
        }
        read += many;
    }
    Some((statuses, rest))
}

/// ```text
/// |                     SSRC of who reports                       |
/// |                     SSRC of the stream (PLI), 0 else          |
///
/// |                             SSRC                              |   FIR, once or more
/// |   sequence    |                   reserved                    |
///
/// |       'R'     |      'E'      |      'M'      |      'B'      |   REMB
/// |  SSRC count   | exponent  |             mantissa              |
/// ```
fn read_payload_feedback(body: &[u8], format: u8, found: &mut Found) -> Option<()> {
    let ssrc = word(body, 4)?;
    let entries = &body[8..];
    match format {
        FORMAT_PICTURE_LOSS => found.push(Feedback::PictureLoss { ssrc }),
        FORMAT_FULL_INTRA => {
            for entry in entries.chunks_exact(8) {
                found.push(Feedback::FullIntra { ssrc: word(entry, 0)?, sequence: entry[4] });
            }
        }
        FORMAT_APPLICATION if entries.starts_with(b"REMB") => {
            let packed = word(entries, 4)?;
            let exponent = packed >> 18 & 0x3f;
            let mantissa = u64::from(packed & 0x3_ffff);
            let bitrate = mantissa.saturating_mul(1 << exponent);
            found.push(Feedback::EstimatedBitrate { bitrate });
        }
        _ => {}
    }
    Some(())
}

/// The big-endian word at byte `at`.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}
