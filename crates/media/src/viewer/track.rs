//! One track as one viewer gets it: headers, sequence numbers, timestamps, repeats, reports.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::TrackFigures;
use super::numbering::{Numbering, Place};
use crate::batch::{Batch, Route};
use crate::estimate::Estimator;
use crate::frame::{Codec, MediaKind, NtpTime, PacketisedFrame};
use crate::negotiated::{ExtensionKind, HeaderExtension, Payload, Track};
use crate::rtcp::{ReportBlock, SenderInfo, compact_ntp};
use crate::rtx::{RepairLimit, Run, Sent, SentRecord};
use crate::srtp::{SrtpError, SrtpSender};
use crate::timeline::Timeline;

/// RFC 3550 §5.1: version 2, no padding, no extension, no CSRC.
const RTP_VERSION_BYTE: u8 = 0x80;
/// The X bit: an extension follows.
const EXTENDED: u8 = 0x10;
const MARKER: u8 = 0x80;
const FIXED_BYTES: usize = 12;
const EXTENDED_BYTES: usize = 20;
/// Sender reports that a viewer may still refer to: the newest few seconds.
const REPORTS_KEPT: usize = 4;

/// What a track sends through.
pub(super) struct Outlet<'a> {
    pub(super) sender: &'a mut SrtpSender,
    pub(super) estimator: &'a mut Estimator,
    pub(super) route: &'a Route,
    pub(super) batch: &'a mut Batch,
    /// Now, in microseconds since the viewer's first packet.
    pub(super) at_micros: u64,
}

/// One track as this viewer gets it.
pub(super) struct OutTrack {
    negotiated: Track,
    /// The payload type of the codec that came last: looked up once, not for each packet.
    payload: Option<(Codec, Option<Payload>)>,
    /// Extended sequence number of the next packet: roll-over counter and 16 bits (RFC 3711 §3.3.1).
    pub(super) next_index: u64,
    /// The same of retransmissions.
    next_rtx_index: u64,
    /// The next transport-wide sequence number.
    next_transport: u16,
    timeline: Option<Timeline>,
    /// How the numbers of packets that are passed on go on.
    numbering: Numbering,
    pub(super) start_timestamp: u32,
    /// Capture time of the frame that has the timeline's newest timestamp.
    pub(super) captured: NtpTime,
    record: SentRecord,
    pub(super) repairs: RepairLimit,
    pub(super) figures: TrackFigures,
    reported_lost: i32,
    /// The next frame comes from another stream than the one before: their clocks have no relation.
    pub(super) comes_from_elsewhere: bool,
    /// Compact NTP time of the newest sender reports, and when they were sent.
    reports: [Option<(u32, Instant)>; REPORTS_KEPT],
}

impl OutTrack {
    pub(super) fn new(negotiated: Track, seed: u64) -> Self {
        let [a, b, c, d, low, high, rtx_low, rtx_high] = seed.to_le_bytes();
        // The first sequence numbers stay below 2^15, so that a lost first packet cannot make the
        // receiver guess a wrong roll-over counter (RFC 3711 §3.3.1).
        let first = |low, high| u64::from(u16::from_le_bytes([low, high]) & 0x7fff);
        Self {
            negotiated,
            payload: None,
            next_index: first(low, high),
            next_rtx_index: first(rtx_low, rtx_high),
            next_transport: 0,
            timeline: None,
            numbering: Numbering::default(),
            start_timestamp: u32::from_le_bytes([a, b, c, d]),
            captured: NtpTime(0),
            record: SentRecord::default(),
            repairs: RepairLimit::default(),
            figures: TrackFigures::default(),
            reported_lost: 0,
            comes_from_elsewhere: false,
            reports: [None; REPORTS_KEPT],
        }
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.negotiated.ssrc
    }

    /// The timeline in the clock of this codec; a source that changed its codec starts a new one.
    pub(super) fn timeline(&mut self, codec: Codec) -> &mut Timeline {
        let start = self.start_timestamp;
        let fits = |timeline: &Timeline| timeline.clock_rate() == codec.clock_rate();
        if !self.timeline.as_ref().is_some_and(fits) {
            self.timeline = None;
        }
        self.timeline.get_or_insert_with(|| Timeline::new(start, codec.clock_rate()))
    }

    pub(super) fn timestamp(&mut self, frame: &PacketisedFrame, now: Instant) -> u64 {
        self.captured = frame.captured;
        let comes_from_elsewhere = std::mem::take(&mut self.comes_from_elsewhere);
        let timeline = self.timeline(frame.codec);
        if frame.discontinuity || comes_from_elsewhere {
            timeline.anchor(frame.ticks, now);
        }
        timeline.map(frame.ticks, now)
    }

    /// Seals these payloads of a frame into the batch. Nothing is sent of a codec that the viewer
    /// does not take. Returns the bytes of it.
    pub(super) fn send(
        &mut self,
        out: &mut Outlet<'_>,
        frame: &PacketisedFrame,
        payloads: Range<usize>,
        timestamp: u64,
    ) -> Result<usize, SrtpError> {
        let Some(payload) = self.payload(frame.codec) else { return Ok(0) };
        let run = Run {
            serial: frame.serial(),
            index: self.next_index,
            timestamp: timestamp as u32,
            payload: payloads.start as u32,
            count: payloads.len() as u32,
            extension: self.extension_value(out),
        };
        self.numbering.end();
        // Spent even if sealing fails: the sender would refuse them for ever after.
        self.next_index += payloads.len() as u64;
        self.spend_transport_numbers(run.count);
        let mut header = self.header(payload.payload_type, self.negotiated.ssrc, run.timestamp);
        let mut bytes = 0;
        for (offset, index) in payloads.enumerate() {
            let sent = Sent { run, offset: offset as u32 };
            self.stamp(&mut header, &sent, frame);
            let payload = frame.payload(index);
            let start = out.batch.bytes().len();
            let (sender, batch) = (&mut *out.sender, &mut *out.batch);
            batch.add(out.route, |out| {
                sender.protect_rtp(header.bytes(), payload, sent.index(), out)
            })?;
            let packet_bytes = out.batch.bytes().len() - start;
            self.note_transport(out, sent.extension(self.negotiated.extension), packet_bytes);
            self.figures.packets += 1;
            self.figures.octets += payload.len() as u64;
            bytes += packet_bytes;
        }
        self.record.push(run);
        self.repairs.handle_sent(run.count);
        Ok(bytes)
    }

    /// Passes a packet of sound on that came as `number` of its sender's: in the same order and with
    /// the same gaps, so that the viewer conceals, repairs and asks again as if it were the sender's
    /// own receiver. `None` for one that comes twice or too late; else the bytes of it.
    pub(super) fn pass_on(
        &mut self,
        out: &mut Outlet<'_>,
        frame: &PacketisedFrame,
        number: u64,
        now: Instant,
    ) -> Result<Option<usize>, SrtpError> {
        let Some(payload) = self.payload(frame.codec) else { return Ok(Some(0)) };
        if frame.packet_count() == 0 {
            return Ok(Some(0));
        }
        let ssrc = self.negotiated.ssrc;
        let Some((index, timestamp)) = self.place(frame, number, now) else { return Ok(None) };
        if !out.sender.is_free(ssrc, index) {
            return Ok(None);
        }
        let extension = self.extension_value(out);
        let (serial, timestamp) = (frame.serial(), timestamp as u32);
        let run = Run { serial, index, timestamp, payload: 0, count: 1, extension };
        self.spend_transport_numbers(1);
        let sent = Sent { run, offset: 0 };
        let (payload_type, content) = self.content(payload, frame, 0);
        let mut header = self.header(payload_type, ssrc, timestamp);
        self.stamp(&mut header, &sent, frame);
        let start = out.batch.bytes().len();
        let (sender, batch) = (&mut *out.sender, &mut *out.batch);
        batch.add(out.route, |out| sender.protect_late_rtp(header.bytes(), content, index, out))?;
        let bytes = out.batch.bytes().len() - start;
        self.note_transport(out, extension, bytes);
        self.figures.packets += 1;
        self.figures.octets += content.len() as u64;
        self.record.push(run);
        self.repairs.handle_sent(1);
        Ok(Some(bytes))
    }

    /// The index and timestamp of a packet that is passed on.
    fn place(&mut self, frame: &PacketisedFrame, number: u64, now: Instant) -> Option<(u64, u64)> {
        let comes_from_elsewhere = std::mem::take(&mut self.comes_from_elsewhere);
        if comes_from_elsewhere || frame.discontinuity {
            self.numbering.end();
        }
        let index = match self.numbering.place(number) {
            Place::Begins => {
                self.numbering.begin(number, self.next_index);
                self.timeline(frame.codec).anchor(frame.ticks, now);
                self.next_index
            }
            Place::Ahead(index) => {
                self.numbering.go_on(number);
                index
            }
            Place::Late(index) => {
                return Some((index, self.timeline(frame.codec).follow_late(frame.ticks)));
            }
            Place::Nowhere => return None,
        };
        self.next_index = index + 1;
        self.captured = frame.captured;
        Some((index, self.timeline(frame.codec).follow(frame.ticks, now)))
    }

    /// What a packet carries and as which payload type: with redundancy where the viewer takes that.
    fn content<'f>(
        &self,
        payload: Payload,
        frame: &'f PacketisedFrame,
        index: usize,
    ) -> (u8, &'f [u8]) {
        let red = frame.forwarded.as_ref().and_then(|forwarded| forwarded.red.as_deref());
        match self.negotiated.red.zip(red) {
            Some(content) => content,
            None => (payload.payload_type, frame.payload(index)),
        }
    }

    /// The packet that a viewer names by its sequence number, if it is remembered.
    pub(super) fn find(&self, sequence: u16) -> Option<Sent> {
        self.record.find(sequence)
    }

    /// Sends a packet again: as a retransmission where that was settled, else the very same bytes.
    /// `frame` is the one that the packet was made of. Returns the bytes of it.
    pub(super) fn repeat(
        &mut self,
        out: &mut Outlet<'_>,
        sent: &Sent,
        frame: &PacketisedFrame,
    ) -> Result<usize, SrtpError> {
        debug_assert_eq!(sent.run.serial, frame.serial());
        let Some(payload) = self.payload(frame.codec) else { return Ok(0) };
        let start = out.batch.bytes().len();
        match self.negotiated.rtx_ssrc.zip(payload.rtx) {
            Some((ssrc, payload_type)) => {
                self.retransmit(
                    out,
                    sent,
                    frame,
                    self.header(payload_type, ssrc, sent.run.timestamp),
                )?;
            }
            None => {
                let ssrc = self.negotiated.ssrc;
                let (payload_type, content) = self.content(payload, frame, sent.payload());
                let mut header = self.header(payload_type, ssrc, sent.run.timestamp);
                self.stamp(&mut header, sent, frame);
                let sender = &*out.sender;
                out.batch.add(out.route, |out| {
                    sender.repeat_rtp(header.bytes(), content, sent.index(), out)
                })?;
            }
        }
        Ok(out.batch.bytes().len() - start)
    }

    /// RFC 4588 §4: another SSRC with its own sequence numbers, the original timestamp and marker,
    /// and the original sequence number in front of the original payload.
    fn retransmit(
        &mut self,
        out: &mut Outlet<'_>,
        sent: &Sent,
        frame: &PacketisedFrame,
        mut header: Header,
    ) -> Result<(), SrtpError> {
        let index = self.next_rtx_index;
        self.next_rtx_index += 1;
        let extension = self.extension_value(out);
        self.spend_transport_numbers(1);
        header.set_marker(marker(frame, sent.payload()));
        header.set_sequence(index as u16);
        header.set_extension(extension);
        let original_sequence = (sent.index() as u16).to_be_bytes();
        let payload = [&original_sequence[..], frame.payload(sent.payload())];
        let start = out.batch.bytes().len();
        let (sender, batch) = (&mut *out.sender, &mut *out.batch);
        batch
            .add(out.route, |out| sender.protect_rtp_parts(header.bytes(), &payload, index, out))?;
        let bytes = out.batch.bytes().len() - start;
        self.note_transport(out, extension, bytes);
        Ok(())
    }

    /// Of frames older than `serial` nothing can be repaired any more.
    pub(super) fn forget_before(&mut self, serial: u64) {
        self.record.forget_before(serial);
    }

    /// Whether the viewer takes a codec.
    pub(super) fn takes(&self, codec: Codec) -> bool {
        match self.payload {
            Some((known, payload)) if known == codec => payload.is_some(),
            Some(_) | None => self.negotiated.takes(codec),
        }
    }

    fn payload(&mut self, codec: Codec) -> Option<Payload> {
        match self.payload {
            Some((known, payload)) if known == codec => payload,
            Some(_) | None => {
                let payload = self.negotiated.payload(codec);
                self.payload = Some((codec, payload));
                payload
            }
        }
    }

    fn header(&self, payload_type: u8, ssrc: u32, timestamp: u32) -> Header {
        Header::new(payload_type, ssrc, timestamp, self.negotiated.extension)
    }

    /// Makes the header that of a packet of the first transmission.
    fn stamp(&self, header: &mut Header, sent: &Sent, frame: &PacketisedFrame) {
        header.set_marker(marker(frame, sent.payload()));
        header.set_sequence(sent.index() as u16);
        header.set_extension(sent.extension(self.negotiated.extension));
    }

    /// What the next packet's header extension says.
    fn extension_value(&self, out: &Outlet<'_>) -> u32 {
        match self.negotiated.extension.map(|extension| extension.kind) {
            Some(ExtensionKind::AbsoluteSendTime) => absolute_send_time(out.at_micros),
            Some(ExtensionKind::TransportSequence) => u32::from(self.next_transport),
            None => 0,
        }
    }

    fn spend_transport_numbers(&mut self, count: u32) {
        self.next_transport = self.next_transport.wrapping_add(count as u16);
    }

    fn note_transport(&self, out: &mut Outlet<'_>, extension: u32, bytes: usize) {
        let kind = self.negotiated.extension.map(|extension| extension.kind);
        if kind == Some(ExtensionKind::TransportSequence) {
            out.estimator.handle_sent(extension as u16, bytes, out.at_micros as u32);
        }
    }

    /// The newest frame's capture time and timestamp, both carried on to `now`.
    pub(super) fn report(&mut self, now: Instant) -> Option<SenderInfo> {
        let timeline = self.timeline.as_ref()?;
        let (_, at) = timeline.newest().filter(|_| self.figures.packets > 0)?;
        let elapsed = now.saturating_duration_since(at).as_micros() as u64;
        let info = SenderInfo {
            ssrc: self.negotiated.ssrc,
            ntp: NtpTime::from_unix_micros(self.captured.unix_micros() + elapsed),
            rtp_timestamp: timeline.at(now)? as u32,
            packets: self.figures.packets as u32,
            octets: self.figures.octets as u32,
        };
        self.reports.rotate_right(1);
        self.reports[0] = Some((compact_ntp(info.ntp), now));
        Some(info)
    }

    /// RFC 3550 §6.4.1: since we sent the report that this one answers, less the time that the viewer
    /// kept it. `None` for an answer to none of ours.
    pub(super) fn round_trip(&self, block: &ReportBlock, now: Instant) -> Option<Duration> {
        let answered = block.last_sender_report;
        let mut reports = self.reports.iter().flatten();
        let (_, sent_at) = reports.find(|(ntp, _)| *ntp == answered && answered != 0)?;
        let kept = Duration::from_micros(u64::from(block.delay_since_last) * 1_000_000 / 65_536);
        Some(now.saturating_duration_since(*sent_at).saturating_sub(kept))
    }

    /// How many more packets are lost than the last report said.
    pub(super) fn newly_lost(&mut self, cumulative: i32) -> u64 {
        let new = cumulative.saturating_sub(self.reported_lost).max(0);
        self.reported_lost = cumulative;
        new as u64
    }
}

impl Sent {
    /// What its header extension said.
    fn extension(&self, extension: Option<HeaderExtension>) -> u32 {
        match extension.map(|extension| extension.kind) {
            Some(ExtensionKind::TransportSequence) => self.run.extension + self.offset,
            Some(ExtensionKind::AbsoluteSendTime) | None => self.run.extension,
        }
    }
}

/// The last packet of a picture carries the marker (RFC 6184 §5.1 and the like), and of sound that is
/// passed on the one that came with it.
fn marker(frame: &PacketisedFrame, payload: usize) -> u8 {
    let is_marked = match &frame.forwarded {
        Some(forwarded) => forwarded.marker,
        None => frame.codec.kind() == MediaKind::Video && payload + 1 == frame.packet_count(),
    };
    if is_marked { MARKER } else { 0 }
}

/// Seconds in 6.18 fixed point, wrapping every 64 s.
fn absolute_send_time(micros: u64) -> u32 {
    ((u128::from(micros) << 18) / 1_000_000) as u32 & 0x00ff_ffff
}

/// An RTP header of which the greater part is the same for all packets of a run.
///
/// ```text
/// |V=2|P|X|  CC   |M|     PT      |        sequence number        |
/// |                           timestamp                           |
/// |                             SSRC                              |
/// |     0xBE      |     0xDE      |          length = 1           |  with an extension
/// |  id   | len-1 |  value, 2 bytes and 0 or 3 bytes              |
/// ```
/// The extension is of fixed width, so that the packets of a run stay equally long.
struct Header {
    bytes: [u8; EXTENDED_BYTES],
    len: usize,
    extension: Option<ExtensionKind>,
}

impl Header {
    fn new(
        payload_type: u8,
        ssrc: u32,
        timestamp: u32,
        extension: Option<HeaderExtension>,
    ) -> Self {
        let mut bytes = [0; EXTENDED_BYTES];
        bytes[0] = RTP_VERSION_BYTE;
        bytes[1] = payload_type;
        bytes[4..8].copy_from_slice(&timestamp.to_be_bytes());
        bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let mut len = FIXED_BYTES;
        if let Some(HeaderExtension { id, kind }) = extension {
            bytes[0] |= EXTENDED;
            let length = match kind {
                ExtensionKind::AbsoluteSendTime => 3,
                ExtensionKind::TransportSequence => 2,
            };
            // RFC 8285 §4.2; the length counts from 0.
            bytes[12..17].copy_from_slice(&[0xbe, 0xde, 0, 1, id << 4 | (length - 1)]);
            len = EXTENDED_BYTES;
        }
        Self { bytes, len, extension: extension.map(|extension| extension.kind) }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn set_marker(&mut self, marker: u8) {
        self.bytes[1] = self.bytes[1] & !MARKER | marker;
    }

    fn set_sequence(&mut self, sequence: u16) {
        self.bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
    }

    fn set_extension(&mut self, value: u32) {
        match self.extension {
            Some(ExtensionKind::AbsoluteSendTime) => {
                self.bytes[17..20].copy_from_slice(&value.to_be_bytes()[1..]);
            }
            Some(ExtensionKind::TransportSequence) => {
                self.bytes[17..19].copy_from_slice(&(value as u16).to_be_bytes());
            }
            None => {}
        }
    }
}
