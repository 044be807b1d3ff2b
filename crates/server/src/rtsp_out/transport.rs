//! The `Transport` header (RFC 2326 §12.39): which of the ways that a client offers is ours.

/// A way that a client offers and that we have: RTP in the RTSP connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interleaved {
    /// The channels for RTP and RTCP that the client asks for.
    pub(crate) channels: Option<(u8, u8)>,
}

/// The first offered way over TCP; `None` where the client offers none.
pub(crate) fn choose(header: &str) -> Option<Interleaved> {
    header.split(',').find_map(|offer| {
        let mut parts = offer.trim().split(';');
        let is_tcp = parts.next()?.trim().eq_ignore_ascii_case("RTP/AVP/TCP");
        let mut channels = None;
        for part in parts.map(str::trim) {
            if part.eq_ignore_ascii_case("multicast") {
                return None;
            }
            if let Some(pair) = part.strip_prefix("interleaved=") {
                channels = Some(read_channels(pair)?);
            }
        }
        is_tcp.then_some(Interleaved { channels })
    })
}

fn read_channels(pair: &str) -> Option<(u8, u8)> {
    let (rtp, rtcp) = pair.split_once('-')?;
    let (rtp, rtcp) = (rtp.trim().parse().ok()?, rtcp.trim().parse().ok()?);
    (rtp != rtcp).then_some((rtp, rtcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_is_chosen_wherever_it_stands_and_nothing_else() {
        let with = |channels| Some(Interleaved { channels });
        for (header, expected) in [
            ("RTP/AVP/TCP;unicast;interleaved=2-3", with(Some((2, 3)))),
            ("RTP/AVP;unicast;client_port=5000-5001, RTP/AVP/TCP;unicast", with(None)),
            ("RTP/AVP/TCP;interleaved=255-256, rtp/avp/tcp", with(None)),
            ("RTP/AVP/TCP;interleaved=1-1", None),
            ("RTP/AVP;unicast;client_port=5000-5001", None),
            ("RTP/AVP/TCP;multicast", None),
            ("RTP/AVP/UDP;unicast", None),
            ("", None),
        ] {
            assert_eq!(choose(header), expected, "{header}");
        }
    }
}
