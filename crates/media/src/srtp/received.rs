//! The other end of what [`SrtpSender`](super::SrtpSender) sends: opens RTP and RTCP, seals feedback.
//!
//! For the load tool and for tests: the server itself receives no RTP this way. It keeps no replay
//! list for RTP, since whoever counts packets counts repetitions as well.

use std::fmt;

use super::cipher::Cipher;
use super::keys::{Master, Purpose, Role};
use super::{
    RTCP_HEADER_BYTES, RTCP_INDEX_END, SrtcpReceiver, SrtpError, SrtpProfile, gcm_backend,
};

/// Streams that one session keeps roll-over counters for: picture and sound with a retransmission
/// stream each, twice over.
const MAX_STREAMS: usize = 8;

/// Half of the 16-bit sequence numbers: what is further ahead is taken as behind (RFC 3711 §3.3.1).
const HALF_OF_SEQUENCE: u64 = 1 << 15;

/// One session as its receiver has it.
pub struct ReceivedSession {
    profile: SrtpProfile,
    rtp: Cipher,
    reports: SrtcpReceiver,
    feedback: Cipher,
    next_feedback_index: u32,
    /// The highest index of each SSRC that proved authentic.
    highest: Vec<(u32, u64)>,
}

impl ReceivedSession {
    /// `own` is the role that the receiver had in the DTLS handshake.
    pub fn new(profile: SrtpProfile, material: &[u8], own: Role) -> Result<Self, SrtpError> {
        let theirs = match own {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let cipher = |writer, purpose| {
            let master = Master::from_exported(profile, material, writer)?;
            Cipher::derive(profile, &master, purpose, gcm_backend())
        };
        let reports = cipher(theirs, Purpose::Rtcp)?;
        Ok(Self {
            profile,
            rtp: cipher(theirs, Purpose::Rtp)?,
            reports: SrtcpReceiver::from_cipher(profile, reports),
            feedback: cipher(own, Purpose::Rtcp)?,
            next_feedback_index: 1,
            highest: Vec::new(),
        })
    }

    /// Decrypts an RTP packet in place, whose header has `header` bytes and names `ssrc` and
    /// `sequence`; returns its payload, padding and all.
    ///
    /// The roll-over counter is guessed from the packets opened before (RFC 3711 §3.3.1), so at
    /// least one in 2^15 of each SSRC has to be opened.
    pub fn open_rtp<'a>(
        &mut self,
        ssrc: u32,
        sequence: u16,
        header: usize,
        packet: &'a mut [u8],
    ) -> Result<&'a [u8], SrtpError> {
        let place = self.highest.iter().position(|(known, _)| *known == ssrc);
        if place.is_none() && self.highest.len() == MAX_STREAMS {
            return Err(SrtpError::TooManySsrcs { ssrc, max: MAX_STREAMS });
        }
        let highest = place.map(|place| self.highest[place].1);
        let index = highest.map_or(u64::from(sequence), |highest| nearest(highest, sequence));
        let end = self.rtp.open_rtp(ssrc, index, header, packet)?;
        match place {
            Some(place) => self.highest[place].1 = self.highest[place].1.max(index),
            None => self.highest.push((ssrc, index)),
        }
        Ok(&packet[header..end])
    }

    /// Decrypts a compound RTCP packet in place, as [`SrtcpReceiver::unprotect_rtcp`] does.
    pub fn open_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        self.reports.unprotect_rtcp(packet)
    }

    /// Appends protected feedback to `out`; on an error `out` is left as it was.
    pub fn seal_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), SrtpError> {
        let Some((header, body)) = packet.split_first_chunk::<RTCP_HEADER_BYTES>() else {
            let (actual, needed) = (packet.len(), RTCP_HEADER_BYTES);
            return Err(SrtpError::HeaderTooShort { actual, needed });
        };
        let index = self.next_feedback_index;
        if index >= RTCP_INDEX_END {
            return Err(SrtpError::IndexExhausted);
        }
        self.next_feedback_index += 1;
        let start = out.len();
        let sealed = self.feedback.seal_rtcp(index, header, body, out);
        sealed.inspect_err(|_| out.truncate(start))
    }
}

impl fmt::Debug for ReceivedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedSession").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The index with this sequence number that is nearest to the highest one so far.
fn nearest(highest: u64, sequence: u16) -> u64 {
    let same_round = highest & !0xffff | u64::from(sequence);
    if same_round + HALF_OF_SEQUENCE < highest {
        same_round + (1 << 16)
    } else if same_round > highest + HALF_OF_SEQUENCE {
        // Before the first round there is none.
        same_round.checked_sub(1 << 16).unwrap_or(same_round)
    } else {
        same_round
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::srtp::SrtpSender;

    const PROFILES: [SrtpProfile; 3] =
        [SrtpProfile::AeadAes256Gcm, SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmSha1_80];

    fn material(profile: SrtpProfile) -> Vec<u8> {
        (0..profile.keying_material_len() as u8).collect()
    }

    fn header(sequence: u16) -> [u8; 12] {
        let [high, low] = sequence.to_be_bytes();
        [0x80, 96, high, low, 0, 0, 0, 1, 0, 0, 0, 7]
    }

    #[test]
    fn what_the_server_seals_is_opened_over_a_rollover_and_out_of_order() {
        for profile in PROFILES {
            let mut sender = SrtpSender::from_dtls_server(profile, &material(profile)).unwrap();
            let mut session =
                ReceivedSession::new(profile, &material(profile), Role::Client).unwrap();
            let mut packets: Vec<Vec<u8>> = (65_530..65_550_u64)
                .map(|index| {
                    let mut out = Vec::new();
                    sender.protect_rtp(&header(index as u16), b"media", index, &mut out).unwrap();
                    out
                })
                .collect();
            packets.swap(5, 6);
            packets.swap(8, 12);
            for packet in &mut packets {
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                assert_eq!(session.open_rtp(7, sequence, 12, packet), Ok(&b"media"[..]));
            }
        }
    }

    #[test]
    fn feedback_is_opened_by_the_server_and_forged_media_is_refused() {
        for profile in PROFILES {
            let mut session =
                ReceivedSession::new(profile, &material(profile), Role::Client).unwrap();
            let mut server = SrtcpReceiver::from_dtls_server(profile, &material(profile)).unwrap();
            let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
            let mut sealed = Vec::new();
            session.seal_rtcp(&report, &mut sealed).unwrap();
            assert_eq!(server.unprotect_rtcp(&mut sealed), Ok(&report[..]));

            let mut sender = SrtpSender::from_dtls_server(profile, &material(profile)).unwrap();
            let mut packet = Vec::new();
            sender.protect_rtp(&header(3), b"media", 3, &mut packet).unwrap();
            *packet.last_mut().unwrap() ^= 1;
            assert_eq!(session.open_rtp(7, 3, 12, &mut packet), Err(SrtpError::NotAuthentic));
            assert!(session.open_rtp(7, 3, 12, &mut [0x80; 14]).is_err());
        }
    }

    proptest! {
        #[test]
        fn the_nearest_index_is_found(highest in (1_u64 << 16)..(1 << 40), away in -32_000_i64..32_000) {
            let index = highest.saturating_add_signed(away);
            prop_assert_eq!(nearest(highest, index as u16), index);
        }
    }
}
