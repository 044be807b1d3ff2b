//! What runs when nothing is configured: the shipped sources, and a synthetic camera of each.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use control::{CameraId, SourceId};

use super::{CLOSE_AFTER, Camera, Source};
use crate::ingest::{RtspTransport, SourceUrl};

/// Viewers at once over all sources.
pub(super) const TOTAL_LIMIT: u32 = 500;

/// Where media goes.
pub(super) const MEDIA_UDP: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8555));

/// Where players and recorders read cameras.
pub(super) const RTSP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8554));

/// All; stream API; LiveKit-compatible. The audio port is `audio_listen`.
const HTTP_PORTS: [u16; 3] = [8080, 8086, 7880];

pub(super) fn listen() -> Vec<SocketAddr> {
    HTTP_PORTS.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).collect()
}

pub(super) fn sources() -> Vec<Source> {
    let source = |&(id, name, name_ar, limit): &(&str, &str, &str, u32)| {
        let id = SourceId::parse(id).ok()?;
        Some(Source { id, name: name.to_owned(), name_ar: name_ar.to_owned(), limit })
    };
    SOURCES.iter().filter_map(source).collect()
}

/// Id, English name, Arabic name, limit.
const SOURCES: [(&str, &str, &str, u32); 4] = [
    ("DUBAI_POLICE", "Dubai Police", "شرطة دبي", 50),
    ("METRO", "Metro", "المترو", 30),
    ("PARKING", "Parking", "المواقف", 20),
    ("TAXI", "Taxi", "سيارات الأجرة", 25),
];

/// Id, English name, Arabic name, location, source, address.
const CAMERAS: [[&str; 6]; 4] = [
    [
        "cam-001-sheikh-zayed",
        "Sheikh Zayed Road",
        "شارع الشيخ زايد",
        "Synthetic picture",
        "DUBAI_POLICE",
        "test://clock?width=640&height=360&fps=15&gop=30",
    ],
    [
        "cam-002-metro-union",
        "Union Station",
        "محطة الاتحاد",
        "Synthetic picture",
        "METRO",
        "test://bars?width=640&height=360&fps=15&gop=30",
    ],
    [
        "cam-003-parking-deira",
        "Deira Parking",
        "مواقف ديرة",
        "Synthetic picture",
        "PARKING",
        "test://ball?width=640&height=360&fps=15&gop=30",
    ],
    [
        "cam-004-taxi-airport",
        "Airport Taxi Rank",
        "موقف سيارات أجرة المطار",
        "Synthetic picture",
        "TAXI",
        "test://grid?width=640&height=360&fps=15&gop=30",
    ],
];

/// The shipped cameras of those `sources` that exist.
pub(super) fn cameras(sources: &[Source]) -> Vec<Camera> {
    CAMERAS
        .iter()
        .filter(|camera| sources.iter().any(|source| source.id.as_str() == camera[4]))
        .filter_map(|[id, name, name_ar, location, source, url]| {
            Some(Camera {
                id: CameraId::parse(id).ok()?,
                name: (*name).to_owned(),
                name_ar: (*name_ar).to_owned(),
                location: (*location).to_owned(),
                source: SourceId::parse(source).ok()?,
                url: SourceUrl::parse(url).ok()?,
                sub_url: None,
                transport: RtspTransport::Tcp,
                on_demand: true,
                close_after: CLOSE_AFTER,
            })
        })
        .collect()
}
