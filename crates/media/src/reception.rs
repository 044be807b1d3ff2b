//! One viewer's media as it arrives: counted, timed and acknowledged, hardly ever decrypted.
//!
//! The counterpart of [`viewer`](crate::viewer), for load tools and benchmarks. Loss, reordering and
//! repetition are told by sequence numbers, which stand in the clear, so only every n-th packet is
//! opened to see that it is authentic; all are opened up to the first whole keyframe. Sans-IO and
//! without a clock.
//!
//! It asks for no retransmission, keeps no jitter buffer and estimates no bandwidth: it tells the
//! server that it has plenty ([`ESTIMATE`]).

mod header;
mod keyframe;
mod reports;
mod sequence;

use std::time::{Duration, Instant};

use crate::frame::{Codec, MediaKind, NtpTime};
use crate::peer::SessionKeys;
use crate::rtcp::{ReportBlock, compact_ntp};
use crate::srtp::{ReceivedSession, Role, SrtpError};

use header::{Header, is_rtcp, without_padding};
use keyframe::KeyframeSearch;
use reports::{Told, read, write_estimate, write_picture_loss, write_report};
use sequence::{Place, Sequence};

/// From one receiver report to the next.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How long is waited for a keyframe before one is asked for, and from then on between two
/// requests: servers without a cached group send none by themselves.
const KEYFRAME_PATIENCE: Duration = Duration::from_secs(1);

/// Bits a second that the server is told to have room for. Nobody who measures a server wants it
/// to hold back.
pub const ESTIMATE: u64 = 100_000_000;

/// Streams of one session that are counted: picture and sound with a retransmission stream each,
/// twice over. Packets of others are counted as refused.
const MAX_STREAMS: usize = 8;

/// Payload types of an answer that are kept: all that RTP has.
const MAX_PAYLOAD_TYPES: usize = 128;

/// Bytes of the longest receiver report with an estimate and a request.
const FEEDBACK_BYTES: usize = 256;

/// How many packets are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All up to the first whole keyframe, then one in so many. At least 1, at most 2^14, so that
    /// the roll-over counter is not lost.
    Sampled(u16),
    /// All.
    Whole,
}

/// When a datagram came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// On the clock that never jumps.
    pub at: Instant,
    /// The same moment on the wall clock, which sender reports are compared with.
    pub wall: NtpTime,
}

/// What a datagram was.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// Media or a report; there is nothing to do about it.
    Counted,
    /// A picture's packet that was opened.
    Picture(Opened<'a>),
    /// The server said BYE.
    Goodbye,
    /// Neither media nor a report of this session, or not authentic.
    Refused,
}

/// A packet whose payload is readable.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// What it carries.
    pub codec: Codec,
    /// It directly follows the one before it.
    pub in_order: bool,
    /// The last one of its picture.
    pub ends_picture: bool,
    /// Without padding.
    pub payload: &'a [u8],
}

/// What a viewer has received. All numbers rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceptionFigures {
    /// Media packets, whatever became of them.
    pub packets: u64,
    /// Bytes of them with headers and tags, without UDP and IP.
    pub bytes: u64,
    /// Pictures whose last packet came.
    pub pictures: u64,
    /// Packets that never came, of picture and sound.
    pub lost: u64,
    /// Packets that came after later ones.
    pub reordered: u64,
    /// Packets that came twice.
    pub repeated: u64,
    /// How often a stream went on with sequence numbers that have nothing to do with those before.
    pub restarts: u64,
    /// Packets that were opened and are authentic.
    pub opened: u64,
    /// Packets that were opened and are not authentic.
    pub not_authentic: u64,
    /// Datagrams that belong to no stream of the session.
    pub refused: u64,
    /// Sender reports.
    pub reports: u64,
    /// Requests for a keyframe that were sent.
    pub keyframes_asked: u64,
}

/// One stream of the session.
struct Stream {
    ssrc: u32,
    codec: Codec,
    sequence: Sequence,
    /// The newest sender report and when it came.
    sender: Option<(NtpTime, u32, Instant)>,
    last_packet: Instant,
}

/// The media of one viewer.
pub struct Reception {
    session: ReceivedSession,
    depth: Depth,
    /// Until the next packet is opened.
    until_opened: u16,
    payload_types: Vec<(u8, Codec)>,
    streams: Vec<Stream>,
    search: KeyframeSearch,
    /// When the first whole keyframe was there.
    keyframe_at: Option<Instant>,
    first_packet_at: Option<Instant>,
    longest_gap: Duration,
    own_ssrc: u32,
    next_report: Instant,
    next_request: Instant,
    newest_delay: Option<Duration>,
    counted: ReceptionFigures,
}

impl Reception {
    /// `answer` is the server's SDP, which says what the payload types are; `role` what the viewer
    /// was in the DTLS handshake. `seed` spreads the reports of many viewers over the second.
    pub fn new(
        keys: &SessionKeys,
        role: Role,
        answer: &str,
        depth: Depth,
        (now, seed): (Instant, u32),
    ) -> Result<Self, SrtpError> {
        let session = ReceivedSession::new(keys.profile, &keys.material, role)?;
        Ok(Self {
            session,
            depth,
            until_opened: 0,
            payload_types: payload_types(answer),
            streams: Vec::new(),
            search: KeyframeSearch::default(),
            keyframe_at: None,
            first_packet_at: None,
            longest_gap: Duration::ZERO,
            own_ssrc: seed | 1,
            next_report: now + REPORT_INTERVAL.mul_f64(f64::from(seed >> 16) / 65_536.0),
            next_request: now + KEYFRAME_PATIENCE,
            newest_delay: None,
            counted: ReceptionFigures::default(),
        })
    }

    /// A datagram whose first byte says RTP or RTCP (128 to 191). It may be decrypted in place.
    pub fn handle_datagram<'a>(&mut self, packet: &'a mut [u8], arrival: Arrival) -> Received<'a> {
        self.newest_delay = None;
        if is_rtcp(packet) {
            return self.handle_rtcp(packet, arrival.at);
        }
        let received = self.handle_rtp(packet, arrival);
        if received == Received::Refused {
            self.counted.refused += 1;
        }
        received
    }

    fn handle_rtcp(&mut self, packet: &mut [u8], at: Instant) -> Received<'static> {
        let Ok(compound) = self.session.open_rtcp(packet) else {
            self.counted.not_authentic += 1;
            return Received::Refused;
        };
        let mut received = Received::Counted;
        let (streams, reports) = (&mut self.streams, &mut self.counted.reports);
        read(compound, |told| match told {
            Told::Time { ssrc, ntp, rtp_timestamp } => {
                *reports += 1;
                if let Some(stream) = streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
                    stream.sender = Some((ntp, rtp_timestamp, at));
                }
            }
            Told::Bye => received = Received::Goodbye,
        });
        received
    }

    fn handle_rtp<'a>(&mut self, packet: &'a mut [u8], arrival: Arrival) -> Received<'a> {
        let Some(header) = Header::parse(packet) else { return Received::Refused };
        let Some((index, place)) = self.place(&header, arrival.at) else {
            return Received::Refused;
        };
        self.counted.packets += 1;
        self.counted.bytes += packet.len() as u64;
        self.first_packet_at.get_or_insert(arrival.at);
        let codec = self.streams[index].codec;
        let is_picture = codec.kind() == MediaKind::Video;
        if is_picture {
            self.note_picture(index, &header, arrival);
        }
        if place == Place::Repeated || !self.is_to_be_opened(is_picture) {
            return Received::Counted;
        }
        let has_padding = packet[0] & 0x20 != 0;
        let opened = self.session.open_rtp(header.ssrc, header.sequence, header.len, packet);
        let Ok(payload) = opened else {
            self.counted.not_authentic += 1;
            return Received::Counted;
        };
        self.counted.opened += 1;
        let Some(payload) = without_padding(has_padding, payload) else { return Received::Counted };
        if !is_picture {
            return Received::Counted;
        }
        let what = (header.sequence, header.timestamp, header.marker);
        if self.keyframe_at.is_none() && self.search.handle(codec, what, payload) {
            self.keyframe_at = Some(arrival.at);
        }
        let (in_order, ends_picture) = (place == Place::Next, header.marker);
        Received::Picture(Opened { codec, in_order, ends_picture, payload })
    }

    /// Which stream a packet belongs to, and its place in it. `None`: to none.
    fn place(&mut self, header: &Header, at: Instant) -> Option<(usize, Place)> {
        let known = self.streams.iter().position(|stream| stream.ssrc == header.ssrc);
        if let Some(index) = known {
            let stream = &mut self.streams[index];
            let place = stream.sequence.handle(header.sequence);
            if place == Place::Next || place == Place::AfterGap {
                stream.sequence.note_arrival(header.timestamp, at, stream.codec.clock_rate());
            }
            return Some((index, place));
        }
        let payload_type = header.payload_type;
        let (_, codec) = *self.payload_types.iter().find(|(known, _)| *known == payload_type)?;
        if self.streams.len() == MAX_STREAMS {
            return None;
        }
        let sequence = Sequence::starting_at(header.sequence);
        let stream = Stream { ssrc: header.ssrc, codec, sequence, sender: None, last_packet: at };
        self.streams.push(stream);
        Some((self.streams.len() - 1, Place::Next))
    }

    fn note_picture(&mut self, index: usize, header: &Header, arrival: Arrival) {
        let stream = &mut self.streams[index];
        let gap = arrival.at.saturating_duration_since(stream.last_packet);
        stream.last_packet = arrival.at;
        if self.keyframe_at.is_some() {
            self.longest_gap = self.longest_gap.max(gap);
        }
        if !header.marker {
            return;
        }
        self.counted.pictures += 1;
        if let Some((ntp, rtp_timestamp, _)) = stream.sender {
            let ticks = i64::from(header.timestamp.wrapping_sub(rtp_timestamp) as i32);
            let after = ticks * 1_000_000 / i64::from(stream.codec.clock_rate());
            let captured = ntp.unix_micros().saturating_add_signed(after);
            let delay = arrival.wall.unix_micros().saturating_sub(captured);
            self.newest_delay = Some(Duration::from_micros(delay));
        }
    }

    fn is_to_be_opened(&mut self, is_picture: bool) -> bool {
        let every = match self.depth {
            Depth::Whole => return true,
            Depth::Sampled(_) if is_picture && self.keyframe_at.is_none() => return true,
            Depth::Sampled(every) => every.clamp(1, 1 << 14),
        };
        let is_due = self.until_opened == 0;
        self.until_opened = if is_due { every - 1 } else { self.until_opened - 1 };
        is_due
    }

    /// The next moment at which [`Self::poll_feedback`] has something to send.
    pub fn next_timeout(&self) -> Instant {
        self.next_report
    }

    /// The feedback that is due, sealed: a receiver report with an estimate, and a request for a
    /// keyframe while there was none.
    pub fn poll_feedback(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next_report {
            return None;
        }
        self.next_report = now + REPORT_INTERVAL;
        let blocks: Vec<ReportBlock> =
            self.streams.iter_mut().map(|stream| stream.report(now)).collect();
        let mut compound = Vec::with_capacity(FEEDBACK_BYTES);
        write_report(self.own_ssrc, &blocks, &mut compound);
        let picture = self.streams.iter().find(|stream| stream.codec.kind() == MediaKind::Video);
        if let Some(ssrc) = picture.map(|stream| stream.ssrc) {
            write_estimate(self.own_ssrc, ssrc, ESTIMATE, &mut compound);
            if self.keyframe_at.is_none() && now >= self.next_request {
                self.next_request = now + KEYFRAME_PATIENCE;
                self.counted.keyframes_asked += 1;
                write_picture_loss(self.own_ssrc, ssrc, &mut compound);
            }
        }
        let mut sealed = Vec::with_capacity(FEEDBACK_BYTES);
        self.session.seal_rtcp(&compound, &mut sealed).is_ok().then_some(sealed)
    }

    /// When the first packet of media came.
    pub fn first_packet_at(&self) -> Option<Instant> {
        self.first_packet_at
    }

    /// When the last packet of the first whole keyframe came.
    pub fn keyframe_at(&self) -> Option<Instant> {
        self.keyframe_at
    }

    /// How late the picture was that the newest datagram ended: from its capture, as the sender's
    /// reports date it, to its arrival. `None` where it ended none, or no report came yet. Means
    /// something only where both ends share a wall clock.
    pub fn newest_delay(&self) -> Option<Duration> {
        self.newest_delay
    }

    /// The longest time without a packet of the picture since the last call, after the first
    /// keyframe.
    pub fn take_longest_gap(&mut self) -> Duration {
        std::mem::take(&mut self.longest_gap)
    }

    /// Everything that was counted.
    pub fn figures(&self) -> ReceptionFigures {
        let mut figures = self.counted;
        for sequence in self.streams.iter().map(|stream| &stream.sequence) {
            figures.lost += sequence.lost();
            figures.reordered += sequence.reordered();
            figures.repeated += sequence.repeated();
            figures.restarts += sequence.restarts();
        }
        figures
    }
}

impl Stream {
    fn report(&mut self, now: Instant) -> ReportBlock {
        let last = self.sender.map(|(ntp, _, came)| {
            let delay = now.saturating_duration_since(came).as_secs_f64() * 65_536.0;
            (compact_ntp(ntp), delay as u32)
        });
        let (last_sender_report, delay_since_last) = last.unwrap_or_default();
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: self.sequence.take_fraction_lost(),
            cumulative_lost: self.sequence.lost().min(0x7f_ffff) as i32,
            highest_sequence: self.sequence.highest(),
            jitter: self.sequence.jitter(),
            last_sender_report,
            delay_since_last,
        }
    }
}

/// The payload types of an answer whose codec is known: `a=rtpmap:96 H264/90000`.
fn payload_types(answer: &str) -> Vec<(u8, Codec)> {
    let maps = answer.lines().filter_map(|line| {
        let (payload_type, encoding) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
        let codec = Codec::from_name(encoding.split('/').next()?)?;
        Some((payload_type.parse().ok()?, codec))
    });
    maps.take(MAX_PAYLOAD_TYPES).collect()
}

#[cfg(test)]
mod tests;
