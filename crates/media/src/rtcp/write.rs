//! Writes what we tell viewers.

use super::{BYE, RECEIVER_REPORT, SENDER_REPORT, SOURCE_DESCRIPTION, SenderInfo};

/// SDES item type of a canonical name (RFC 3550 §6.5.1).
const CNAME_ITEM: u8 = 1;

/// Bytes of text that a one-byte length can hold.
const MAX_TEXT_BYTES: usize = 255;

/// Sources that the 5-bit count of a BYE can hold.
const MAX_BYE_SOURCES: usize = 31;

/// Appends SR + SDES CNAME as one compound packet.
///
/// A `cname` of more than 255 bytes is cut at a character's boundary.
///
/// ```text
/// |V=2|P|   0     |    SR = 200   |          length = 6           |
/// |                             SSRC                              |
/// |                     NTP time (64 bits)                        |
/// |                        RTP timestamp                          |
/// |                        packets sent                           |
/// |                     payload bytes sent                        |
/// |V=2|P|   1     |   SDES = 202  |            length             |
/// |                             SSRC                              |
/// |   CNAME = 1   |     bytes     | text, 1 to 4 zeros to the boundary
/// ```
pub fn write_sender_report(info: &SenderInfo, cname: &str, out: &mut Vec<u8>) {
    write_packet(SENDER_REPORT, 0, out, |out| {
        out.extend_from_slice(&info.ssrc.to_be_bytes());
        out.extend_from_slice(&info.ntp.0.to_be_bytes());
        out.extend_from_slice(&info.rtp_timestamp.to_be_bytes());
        out.extend_from_slice(&info.packets.to_be_bytes());
        out.extend_from_slice(&info.octets.to_be_bytes());
    });
    write_packet(SOURCE_DESCRIPTION, 1, out, |out| {
        out.extend_from_slice(&info.ssrc.to_be_bytes());
        out.push(CNAME_ITEM);
        write_text(cname, out);
        // RFC 3550 §6.5: the list of items ends with a zero byte, even on a boundary.
        out.push(0);
    });
}

/// Appends an empty RR + BYE with a reason as one compound packet (RFC 3550 §6.6).
///
/// The report is from the first of `ssrcs`; without any, nothing is appended. A `reason` of more
/// than 255 bytes is cut at a character's boundary, an empty one is left out.
///
/// ```text
/// |V=2|P|   0     |    RR = 201   |          length = 1           |
/// |                             SSRC                              |
/// |V=2|P|  count  |   BYE = 203   |            length             |
/// |                             SSRC                              |   count times, at most 31
/// |     bytes     | text, 0 to 3 zeros to the boundary
/// ```
pub fn write_bye(ssrcs: &[u32], reason: &str, out: &mut Vec<u8>) {
    let Some(first) = ssrcs.first() else { return };
    write_packet(RECEIVER_REPORT, 0, out, |out| out.extend_from_slice(&first.to_be_bytes()));
    for leaving in ssrcs.chunks(MAX_BYE_SOURCES) {
        write_packet(BYE, leaving.len() as u8, out, |out| {
            out.extend(leaving.iter().flat_map(|ssrc| ssrc.to_be_bytes()));
            if !reason.is_empty() {
                write_text(reason, out);
            }
        });
    }
}

/// Writes a header, then the body, zeros up to the next word boundary, and the length.
fn write_packet(
    packet_type: u8,
    count: u8,
    out: &mut Vec<u8>,
    write_body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0x80 | count, packet_type, 0, 0]);
    write_body(out);
    let len = (out.len() - start).next_multiple_of(4);
    out.resize(start + len, 0);
    // The largest packet is a BYE of 31 sources and 255 bytes of reason: 96 words.
    let words = (len / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

/// Writes one byte of length and the text.
fn write_text(text: &str, out: &mut Vec<u8>) {
    let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
