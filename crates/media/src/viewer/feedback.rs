//! What a viewer tells, and what is done about it: repairs, and the pace of a thin line.

use std::sync::Arc;
use std::time::Instant;

use super::Viewer;
use crate::batch::Batch;
use crate::frame::{MediaKind, PacketisedFrame};
use crate::rtcp::{self, Feedback, ReportBlock};
use crate::rtx::Verdict;
use crate::srtp::SrtpError;

/// A packet that a viewer asks for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Of which track.
    pub kind: MediaKind,
    /// Its RTP sequence number.
    pub sequence: u16,
}

/// What a viewer's feedback asks for or tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// It cannot decode (PLI or FIR for our picture).
    pub picture_lost: bool,
    /// Packets newly reported as lost.
    pub newly_lost: u64,
    /// It asks for these again, for [`Viewer::repair`]; at most [`rtcp::MAX_LOST_ENTRIES`].
    pub lost: Vec<Lost>,
    /// It said BYE.
    pub goodbye: bool,
    /// No later packet of the same sender has come before: it tells where the viewer is at present.
    pub is_newest: bool,
}

impl Viewer {
    /// The viewer's SRTCP. An error changes nothing.
    pub fn handle_rtcp(&mut self, packet: &mut [u8], now: Instant) -> Result<Heard, SrtpError> {
        let compound = self.receiver.unprotect_rtcp(packet)?;
        let mut heard = Heard { is_newest: self.receiver.is_newest(), ..Heard::default() };
        // Authentic but unreadable: the viewer lives, its words are lost.
        for feedback in rtcp::parse(compound).unwrap_or_default() {
            self.handle_feedback(feedback, &mut heard, now);
        }
        self.follow_estimate(now);
        Ok(heard)
    }

    fn handle_feedback(&mut self, feedback: Feedback, heard: &mut Heard, now: Instant) {
        match feedback {
            Feedback::PictureLoss { ssrc } => {
                heard.picture_lost |= self.kind_of(ssrc) == Some(MediaKind::Video);
            }
            Feedback::FullIntra { ssrc, sequence }
                if self.kind_of(ssrc) == Some(MediaKind::Video) =>
            {
                let is_new = self.newest_request.replace(sequence) != Some(sequence);
                heard.picture_lost |= is_new;
            }
            Feedback::FullIntra { .. } => {}
            Feedback::Report(block) => heard.newly_lost += self.handle_report(&block, now),
            Feedback::Nack { ssrc, lost } => {
                if let Some(kind) = self.kind_of(ssrc) {
                    heard.lost.extend(lost.into_iter().map(|sequence| Lost { kind, sequence }));
                }
            }
            Feedback::EstimatedBitrate { bitrate } => {
                tracing::trace!(viewer = self.id.0, bitrate, "estimate told");
                self.estimator.handle_told(bitrate, now);
            }
            Feedback::Transport(arrivals) => self.estimator.handle_arrivals(&arrivals, now),
            Feedback::Bye => heard.goodbye = true,
        }
    }

    /// Returns how many packets are newly lost.
    fn handle_report(&mut self, block: &ReportBlock, now: Instant) -> u64 {
        let is_of_block = |track: &&mut super::OutTrack| track.ssrc() == block.ssrc;
        let mut tracks = self.video.iter_mut().chain(&mut self.audio);
        let Some(track) = tracks.find(is_of_block) else { return 0 };
        if let Some(round_trip) = track.round_trip(block, now) {
            self.estimator.handle_round_trip(round_trip);
        }
        let newly_lost = track.newly_lost(block.cumulative_lost);
        match &self.video {
            Some(video) if video.ssrc() == block.ssrc => {
                self.estimator.handle_report(block, video.figures.octets, now);
            }
            Some(_) => {}
            None => self.estimator.handle_sound_report(block, now),
        }
        newly_lost
    }

    fn kind_of(&self, ssrc: u32) -> Option<MediaKind> {
        let is_of = |track: &Option<super::OutTrack>| {
            track.as_ref().is_some_and(|track| track.ssrc() == ssrc)
        };
        match (is_of(&self.video), is_of(&self.audio)) {
            (true, _) => Some(MediaKind::Video),
            (false, true) => Some(MediaKind::Audio),
            (false, false) => None,
        }
    }

    /// What the stream is like at this moment, at least once a second: its rate in bits a second,
    /// and the oldest frame of it that repairs can be made of.
    pub fn handle_stream_state(
        &mut self,
        bits_per_second: Option<u64>,
        oldest_serial: Option<u64>,
        now: Instant,
    ) {
        self.estimator.handle_stream_rate(bits_per_second, now);
        self.follow_estimate(now);
        if let Some(serial) = oldest_serial {
            let tracks = self.video.iter_mut().chain(&mut self.audio);
            tracks.for_each(|track| track.forget_before(serial));
        }
    }

    pub(super) fn follow_estimate(&mut self, now: Instant) {
        let limit = self.estimator.limit();
        if limit.is_some() != self.pace.is_limited() {
            tracing::debug!(
                viewer = self.id.0,
                limit_bps = limit,
                line = ?self.line(),
                "pace of a viewer changed"
            );
        }
        self.pace.set(limit, now);
        self.drop_what_is_late();
    }

    /// Sends packets again that the viewer asks for. `find` knows the stream's frames by their
    /// serials ([`PacketisedFrame::serial`]). What is refused or not found any more is counted.
    pub fn repair<'f>(
        &mut self,
        lost: &[Lost],
        find: impl Fn(u64) -> Option<&'f Arc<PacketisedFrame>>,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<(), SrtpError> {
        let round_trip = self.line().round_trip;
        self.pace.refill(now);
        for lost in lost {
            self.tally.nacked += 1;
            let has_room = self.pace.has_room_for_repair();
            let (mut out, video, audio) = self.outlet(batch, now);
            let track = match lost.kind {
                MediaKind::Video => video,
                MediaKind::Audio => audio,
            };
            let found = track.and_then(|track| {
                let sent = track.find(lost.sequence)?;
                let frame = find(sent.run.serial)?;
                Some((track, sent, frame))
            });
            let Some((track, sent, frame)) = found else {
                self.tally.missed += 1;
                continue;
            };
            if !has_room || track.repairs.judge(sent.index(), round_trip, now) == Verdict::Refuse {
                self.tally.refused += 1;
                continue;
            }
            let bytes = track.repeat(&mut out, &sent, frame)?;
            self.pace.spend(bytes);
            self.tally.repaired += 1;
        }
        Ok(())
    }
}
