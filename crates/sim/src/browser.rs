//! A full viewer: str0m as a WebRTC client, with ICE, DTLS and everything.
//!
//! An implementation of its own of all that the server sends. Its randomness cannot be seeded; it
//! decides keys and transaction ids, and no outcome.

use std::net::SocketAddr;
use std::sync::Arc;

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaData, MediaKind as Kind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::clock::{Clock, SimTime};
use crate::judge::{Judge, Received};
use crate::picture::Log;

/// A picture that stands still over a path with losses is asked for anew at most this often.
const ASK_US: u64 = 1_000_000;

/// What stands between two NAL units.
const START_CODE: &[u8] = &[0, 0, 0, 1];

/// A full viewer.
pub(crate) struct Browser {
    rtc: Rtc,
    clock: Clock,
    video: Mid,
    pending: Option<SdpPendingOffer>,
    /// Its address as it knows it, whatever the network makes of it.
    address: SocketAddr,
    next_timeout: SimTime,
    asked_at: SimTime,
    progressed_at: SimTime,
    /// A picture came torn, or none at all.
    lost: bool,
    sent: Vec<Vec<u8>>,
    pub(crate) is_closed: bool,
}

impl Browser {
    /// A viewer and its offer.
    pub(crate) fn new(
        address: SocketAddr,
        clock: Clock,
        now: SimTime,
    ) -> Result<(Self, String), String> {
        let crypto = Arc::new(str0m_aws_lc_rs::default_provider());
        let mut rtc = RtcConfig::new().set_crypto_provider(crypto).build(clock.instant(now));
        let candidate = Candidate::host(address, "udp").map_err(|error| error.to_string())?;
        rtc.add_local_candidate(candidate);
        let mut change = rtc.sdp_api();
        let video = change.add_media(Kind::Video, Direction::RecvOnly, None, None, None);
        change.add_media(Kind::Audio, Direction::RecvOnly, None, None, None);
        let (offer, pending) = change.apply().ok_or("a client without an offer")?;
        let browser = Self {
            rtc,
            clock,
            video,
            pending: Some(pending),
            address,
            next_timeout: now,
            asked_at: now,
            progressed_at: now,
            lost: false,
            sent: Vec::new(),
            is_closed: false,
        };
        Ok((browser, offer.to_sdp_string()))
    }

    pub(crate) fn handle_answer(&mut self, answer: &str, now: SimTime) -> Result<(), String> {
        let answer = SdpAnswer::from_sdp_string(answer).map_err(|error| error.to_string())?;
        let pending = self.pending.take().ok_or("a second answer")?;
        self.next_timeout = now;
        self.rtc.sdp_api().accept_answer(pending, answer).map_err(|error| error.to_string())
    }

    pub(crate) fn take_sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent)
    }

    /// DTLS close_notify.
    pub(crate) fn say_goodbye(
        &mut self,
        judge: &mut Judge,
        log: &Log,
        now: SimTime,
    ) -> Result<(), String> {
        self.rtc.close().map_err(|error| error.to_string())?;
        let polled = self.poll(judge, log, now);
        self.is_closed = true;
        polled
    }

    pub(crate) fn ask_for_picture(&mut self, judge: &mut Judge, now: SimTime) {
        self.asked_at = now;
        let writer = self.rtc.writer(self.video);
        let asked =
            writer.map(|mut writer| writer.request_keyframe(None, KeyframeRequestKind::Pli));
        if asked.is_some_and(|asked| asked.is_ok()) {
            judge.handle_asked(now);
        }
    }

    pub(crate) fn handle_datagram(
        &mut self,
        server: SocketAddr,
        packet: &[u8],
        judge: &mut Judge,
        log: &Log,
        now: SimTime,
    ) -> Result<(), String> {
        let Ok(receive) = Receive::new(Protocol::Udp, server, self.address, packet) else {
            return Ok(());
        };
        let at = self.clock.instant(now);
        self.rtc.handle_input(Input::Receive(at, receive)).map_err(|error| error.to_string())?;
        self.poll(judge, log, now)
    }

    pub(crate) const fn next_timeout(&self) -> SimTime {
        self.next_timeout
    }

    pub(crate) fn handle_timeout(
        &mut self,
        judge: &mut Judge,
        log: &Log,
        now: SimTime,
    ) -> Result<(), String> {
        let at = self.clock.instant(now);
        self.rtc.handle_input(Input::Timeout(at)).map_err(|error| error.to_string())?;
        let stalls = now.since(self.progressed_at) > ASK_US || self.lost;
        if stalls && !judge.is_strict() && now.since(self.asked_at) > ASK_US {
            self.lost = false;
            self.ask_for_picture(judge, now);
        }
        self.poll(judge, log, now)
    }

    fn poll(&mut self, judge: &mut Judge, log: &Log, now: SimTime) -> Result<(), String> {
        while self.rtc.is_alive() {
            match self.rtc.poll_output().map_err(|error| error.to_string())? {
                Output::Timeout(at) => {
                    // Never twice at one instant, so that virtual time goes on.
                    self.next_timeout = self.clock.of_instant(at).max(now + 1_000);
                    return Ok(());
                }
                Output::Transmit(transmit) => self.sent.push(transmit.contents.to_vec()),
                Output::Event(Event::MediaData(data)) => {
                    self.progressed_at = now;
                    self.hand_in(&data, judge, log)?;
                }
                Output::Event(Event::Closed) => self.is_closed = true,
                Output::Event(_) => {}
            }
        }
        self.is_closed = true;
        Ok(())
    }

    fn hand_in(&mut self, data: &MediaData, judge: &mut Judge, log: &Log) -> Result<(), String> {
        let timestamp = data.time.numer();
        if data.mid != self.video {
            return judge.handle_sound(&Received { units: &[&data.data[..]], timestamp }, log);
        }
        let units = split(&data.data);
        // str0m hands out torn pictures too, and what comes behind a loss.
        if !judge.is_strict() && (!data.contiguous || judge.is_torn(&units, log)) {
            self.lost = true;
            return Ok(());
        }
        judge.handle_picture(&Received { units: &units, timestamp }, log)
    }
}

/// The NAL units of an Annex B stream whose units have no zero bytes in a row.
fn split(stream: &[u8]) -> Vec<&[u8]> {
    let mut units = Vec::new();
    let mut rest = stream.strip_prefix(START_CODE).unwrap_or(stream);
    while let Some(at) = rest.windows(START_CODE.len()).position(|window| window == START_CODE) {
        units.push(&rest[..at]);
        rest = &rest[at + START_CODE.len()..];
    }
    units.push(rest);
    units
}
