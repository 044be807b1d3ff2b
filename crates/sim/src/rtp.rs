//! One track as a viewer receives it: packets put in order, checked one by one, joined to frames.

use std::collections::BTreeMap;

use bytes::Bytes;
use media::MediaKind;
use media::h264::Depacketiser;

use crate::cipher::ViewerCipher;
use crate::clock::SimTime;

const HEADER_BYTES: usize = 12;
/// Packets whose ciphertext is remembered, to tell a repetition by the network from a second packet
/// under the same index. The network repeats within its delay.
const REMEMBERED: usize = 512;
/// Packets that are asked for at once, at most.
const ASKED_MAX: usize = 64;
/// NAL unit type of an aggregation packet: parameter sets, so the first packet of a keyframe.
const STAP_A: u8 = 24;

/// A frame whose packets all came.
pub(crate) struct WholeFrame {
    pub(crate) units: Vec<Bytes>,
    pub(crate) timestamp: u64,
}

struct Packet {
    arrived: SimTime,
    marker: bool,
    timestamp: u32,
    payload: Vec<u8>,
}

/// A frame whose packets are coming in.
struct OpenFrame {
    timestamp: u64,
    units: Vec<Bytes>,
    /// A packet of it is missing.
    torn: bool,
}

/// One track.
pub(crate) struct RtpTrack {
    kind: MediaKind,
    ssrc: u32,
    payload_types: Vec<u8>,
    /// How long one is waited for that was overtaken.
    patience_us: u64,
    /// How long one is waited for that was asked for, in place of it.
    repair_patience_us: u64,
    strict: bool,
    /// Missing packets are asked for again, so often, and have to come within the patience.
    repair_every_us: Option<u64>,
    /// When missing packets were last asked for.
    asked: BTreeMap<u64, SimTime>,
    highest: Option<u64>,
    /// Index and tag of the newest packets.
    seen: BTreeMap<u64, Vec<u8>>,
    waiting: BTreeMap<u64, Packet>,
    next: Option<u64>,
    timestamp: Option<u64>,
    depacketiser: Depacketiser,
    open: Option<OpenFrame>,
    frames: Vec<WholeFrame>,
    pub(crate) received: u64,
    pub(crate) lost: u64,
}

impl RtpTrack {
    pub(crate) fn new(
        kind: MediaKind,
        ssrc: u32,
        payload_types: Vec<u8>,
        patience_us: u64,
        strict: bool,
    ) -> Self {
        Self {
            kind,
            ssrc,
            payload_types,
            patience_us,
            repair_patience_us: 0,
            strict,
            repair_every_us: None,
            asked: BTreeMap::new(),
            highest: None,
            seen: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next: None,
            timestamp: None,
            depacketiser: Depacketiser::default(),
            open: None,
            frames: Vec::new(),
            received: 0,
            lost: 0,
        }
    }

    pub(crate) const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Nothing has to come any more, by itself or when it is asked for.
    pub(crate) const fn relax(&mut self) {
        self.strict = false;
        self.repair_every_us = None;
    }

    /// What is missing is asked for again so often.
    pub(crate) const fn expect_repairs(&mut self, every_us: u64, patience_us: u64) {
        self.repair_every_us = Some(every_us);
        self.repair_patience_us = patience_us;
    }

    /// Nobody can ask for what was before the first packet.
    fn patience_us(&self) -> u64 {
        let is_repaired = self.repair_every_us.is_some() && self.next.is_some();
        if is_repaired { self.repair_patience_us } else { self.patience_us }
    }

    /// Sequence numbers to ask for at this moment.
    pub(crate) fn take_missing(&mut self, now: SimTime) -> Vec<u16> {
        let Some(every_us) = self.repair_every_us else { return Vec::new() };
        let (Some(next), Some(newest)) = (self.next, self.waiting.keys().next_back().copied())
        else {
            return Vec::new();
        };
        self.asked.retain(|index, _| *index >= next);
        let missing = (next..newest).filter(|index| !self.waiting.contains_key(index));
        let due = missing
            .filter(|index| self.asked.get(index).is_none_or(|at| now.since(*at) >= every_us));
        let due: Vec<u64> = due.take(ASKED_MAX).collect();
        self.asked.extend(due.iter().map(|index| (*index, now)));
        due.into_iter().map(|index| index as u16).collect()
    }

    /// The highest index so far, as a receiver report wants it.
    pub(crate) fn highest(&self) -> u32 {
        self.highest.unwrap_or(0) as u32
    }

    /// Frames that became whole since the last call.
    pub(crate) fn take_frames(&mut self) -> Vec<WholeFrame> {
        std::mem::take(&mut self.frames)
    }

    /// When a missing packet is given up.
    pub(crate) fn next_timeout(&self) -> Option<SimTime> {
        let given_up =
            self.waiting.values().map(|packet| packet.arrived + self.patience_us()).min();
        let every_us = self.repair_every_us.filter(|_| !self.waiting.is_empty());
        let asked = every_us.and_then(|every| self.asked.values().map(|at| *at + every).min());
        given_up.into_iter().chain(asked).min()
    }

    /// A packet with this track's SSRC.
    pub(crate) fn handle_packet(
        &mut self,
        datagram: &[u8],
        cipher: &ViewerCipher,
        now: SimTime,
    ) -> Result<(), String> {
        let header = &datagram[..HEADER_BYTES];
        let (marker, payload_type) = (header[1] & 0x80 != 0, header[1] & 0x7f);
        if header[0] != 0x80 || !self.payload_types.contains(&payload_type) {
            return Err(format!("an RTP header begins with {:02x?}", &header[..2]));
        }
        let index = self.index_of(u16::from_be_bytes([header[2], header[3]]));
        let tag = datagram[datagram.len() - 16..].to_vec();
        match self.seen.get(&index) {
            Some(first) if *first == tag => return Ok(()),
            Some(_) => return Err(format!("packet index {index} was used twice")),
            None => {}
        }
        let Some(payload) = cipher.open_rtp(datagram, index) else {
            return Err(format!("packet {index} of SSRC {:08x} is not authentic", self.ssrc));
        };
        self.received += 1;
        self.highest = self.highest.max(Some(index));
        self.seen.insert(index, tag);
        if self.seen.len() > REMEMBERED {
            self.seen.pop_first();
        }
        let timestamp = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if self.next.is_none_or(|next| index >= next) {
            self.waiting.insert(index, Packet { arrived: now, marker, timestamp, payload });
        }
        self.handle_timeout(now)
    }

    /// Time passed: takes what is in order, and gives up what is missing too long.
    pub(crate) fn handle_timeout(&mut self, now: SimTime) -> Result<(), String> {
        while let Some((index, packet)) = self.waiting.first_key_value() {
            let (index, arrived) = (*index, packet.arrived);
            let in_order = self.next == Some(index);
            let oldest =
                self.waiting.values().map(|packet| packet.arrived).min().unwrap_or(arrived);
            if !in_order && now < oldest + self.patience_us() {
                return Ok(());
            }
            let Some(packet) = self.waiting.remove(&index) else { return Ok(()) };
            if let Some(next) = self.next.filter(|_| !in_order) {
                if self.strict {
                    return Err(format!("packets {next} to {index} are missing without a loss"));
                }
                if self.repair_every_us.is_some() {
                    let kind = self.kind;
                    return Err(format!(
                        "packets {next} to {index} of {kind:?} were asked for and never came"
                    ));
                }
                self.lost += index - next;
            }
            self.asked.retain(|asked, _| *asked > index);
            let certain = in_order || self.begins_for_certain(&packet);
            self.next = Some(index + 1);
            self.take(packet, certain)?;
        }
        Ok(())
    }

    /// Behind a loss only a packet that must be the first of a frame begins one for certain.
    fn begins_for_certain(&self, packet: &Packet) -> bool {
        let is_aggregate = packet.payload.first().is_some_and(|first| first & 31 == STAP_A);
        self.kind == MediaKind::Audio || is_aggregate || (self.next.is_none() && self.strict)
    }

    fn take(&mut self, packet: Packet, certain: bool) -> Result<(), String> {
        let timestamp = self.extend(packet.timestamp);
        let is_new = self.timestamp != Some(timestamp);
        if self.timestamp.is_some_and(|before| timestamp < before) {
            return Err(format!("{:?} timestamps fall to {timestamp}", self.kind));
        }
        self.timestamp = Some(timestamp);
        if self.kind == MediaKind::Audio {
            if !is_new {
                return Err(format!("two packets of sound have timestamp {timestamp}"));
            }
            self.frames.push(WholeFrame { units: vec![packet.payload.into()], timestamp });
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) if !is_new => OpenFrame { torn: open.torn || !certain, ..open },
            Some(_) | None => {
                self.depacketiser = Depacketiser::default();
                OpenFrame { timestamp, units: Vec::new(), torn: !certain }
            }
        };
        if !open.torn {
            let units = self.depacketiser.handle_payload(&packet.payload);
            open.units.extend(units.map_err(|error| format!("at {timestamp}: {error}"))?);
        }
        if !packet.marker {
            self.open = Some(open);
        } else if !open.torn {
            let end = self.depacketiser.handle_end_of_frame();
            end.map_err(|error| format!("at {timestamp}: {error}"))?;
            self.frames.push(WholeFrame { units: open.units, timestamp: open.timestamp });
        }
        Ok(())
    }

    /// RFC 3711 §3.3.1: the index nearest to the highest one; the roll-over counter starts at 0.
    fn index_of(&self, sequence: u16) -> u64 {
        let Some(highest) = self.highest else { return u64::from(sequence) };
        let ahead = sequence.wrapping_sub(highest as u16).cast_signed();
        highest.saturating_add_signed(i64::from(ahead))
    }

    fn extend(&self, timestamp: u32) -> u64 {
        // One wrap ahead, so that a fall below the first one can be seen.
        let Some(newest) = self.timestamp else { return u64::from(timestamp) + (1 << 32) };
        let ahead = timestamp.wrapping_sub(newest as u32).cast_signed();
        newest.saturating_add_signed(i64::from(ahead))
    }
}

/// What a sender report says.
pub(crate) struct SenderReport {
    pub(crate) ssrc: u32,
    pub(crate) ntp: u64,
    pub(crate) timestamp: u32,
}

/// What the server tells in a compound packet.
#[derive(Default)]
pub(crate) struct FromServer {
    pub(crate) reports: Vec<SenderReport>,
    pub(crate) goodbye: bool,
}

/// Reads an opened compound packet of the server's; `None` if it is malformed.
pub(crate) fn read_compound(mut rest: &[u8]) -> Option<FromServer> {
    let word =
        |bytes: &[u8], at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk::<4>()?));
    let mut told = FromServer::default();
    while !rest.is_empty() {
        let len = (usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?])) + 1) * 4;
        let (packet, behind) = rest.split_at_checked(len)?;
        match packet[1] {
            200 => told.reports.push(SenderReport {
                ssrc: word(packet, 4)?,
                ntp: u64::from(word(packet, 8)?) << 32 | u64::from(word(packet, 12)?),
                timestamp: word(packet, 16)?,
            }),
            203 => told.goodbye = true,
            _ => {}
        }
        rest = behind;
    }
    Some(told)
}

/// A viewer's request for packets (NACK, RFC 4585 §6.2.1).
pub(crate) fn write_missing(own: u32, of: &RtpTrack, sequences: &[u16]) -> Vec<u8> {
    let mut packet = vec![0x81, 205];
    packet.extend_from_slice(&(2 + sequences.len() as u16).to_be_bytes());
    packet.extend_from_slice(&own.to_be_bytes());
    packet.extend_from_slice(&of.ssrc().to_be_bytes());
    for sequence in sequences {
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
    }
    packet
}

/// A viewer's report on a track, with a request for a keyframe or a goodbye.
pub(crate) fn write_feedback(own: u32, of: &RtpTrack, picture_lost: bool, leaves: bool) -> Vec<u8> {
    let mut compound = vec![0x81, 201, 0, 7];
    compound.extend_from_slice(&own.to_be_bytes());
    compound.extend_from_slice(&of.ssrc().to_be_bytes());
    compound.extend_from_slice(&(of.lost.min(0x7f_ffff) as u32).to_be_bytes());
    compound.extend_from_slice(&of.highest().to_be_bytes());
    compound.extend_from_slice(&[0; 12]);
    if picture_lost {
        compound.extend_from_slice(&[0x81, 206, 0, 2]);
        compound.extend_from_slice(&own.to_be_bytes());
        compound.extend_from_slice(&of.ssrc().to_be_bytes());
    }
    if leaves {
        compound.extend_from_slice(&[0x81, 203, 0, 1]);
        compound.extend_from_slice(&own.to_be_bytes());
    }
    compound
}
