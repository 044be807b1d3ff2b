//! A lease as the store keeps it: one line of text, times in the store's milliseconds.

use control::{
    Basis, CameraId, Class, Lease, Quality, Reservation, ReservationId, SourceId, Timestamp,
};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, percent_decode_str, utf8_percent_encode};

use super::lookup::Leaseholder;
use super::offset::Offset;

/// `source|camera|user|quality|class|created|last packet|node`, see `lua/prelude.lua`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    source: SourceId,
    camera: CameraId,
    user: String,
    quality: Quality,
    class: Class,
    created_ms: u64,
    last_packet_ms: Option<u64>,
    pub(super) node: String,
}

impl Record {
    /// Of a reservation that is not granted yet.
    pub(super) fn of_reservation(reservation: &Reservation, node: &str) -> Self {
        Self {
            source: reservation.source.clone(),
            camera: reservation.camera.clone(),
            user: reservation.user.clone(),
            quality: reservation.quality,
            class: reservation.class,
            created_ms: 0,
            last_packet_ms: None,
            node: node.to_owned(),
        }
    }

    pub(super) fn of_lease(lease: &Lease, node: &str, offset: &Offset) -> Self {
        Self {
            created_ms: offset.to_store(lease.created_at),
            last_packet_ms: match lease.basis {
                Basis::Heartbeat => None,
                Basis::Media { last_packet } => Some(offset.to_store(last_packet)),
            },
            ..Self::of_reservation(&lease.reservation, node)
        }
    }

    pub(super) fn pack(&self) -> String {
        let Self { source, camera, user, quality, class, created_ms, last_packet_ms, node } = self;
        let user = encoded(user);
        let (quality, class) = (quality_word(*quality), class.get());
        let last = last_packet_ms.map(|last| last.to_string()).unwrap_or_default();
        format!("{source}|{camera}|{user}|{quality}|{class}|{created_ms}|{last}|{node}")
    }

    /// `None` for what was not packed here.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let record = Self {
            source: SourceId::parse(parts.next()?).ok()?,
            camera: CameraId::parse(parts.next()?).ok()?,
            user: percent_decode_str(parts.next()?).decode_utf8().ok()?.into_owned(),
            quality: quality_of(parts.next()?)?,
            class: Class::new(parts.next()?.parse().ok()?)?,
            created_ms: parts.next()?.parse().ok()?,
            last_packet_ms: match parts.next()? {
                "" => None,
                last => Some(last.parse().ok()?),
            },
            node: parts.next()?.to_owned(),
        };
        parts.next().is_none().then_some(record)
    }

    /// Whose it is.
    pub(super) fn into_holder(self) -> Leaseholder {
        Leaseholder { user: self.user, camera: self.camera, source: self.source }
    }

    pub(super) fn into_lease(self, id: ReservationId, expires_ms: u64, offset: &Offset) -> Lease {
        let time = |ms| offset.to_node(ms);
        let basis: fn(Timestamp) -> Basis = |last_packet| Basis::Media { last_packet };
        Lease {
            created_at: time(self.created_ms),
            expires_at: time(expires_ms),
            basis: self.last_packet_ms.map(time).map_or(Basis::Heartbeat, basis),
            reservation: Reservation {
                id,
                camera: self.camera,
                source: self.source,
                user: self.user,
                quality: self.quality,
                class: self.class,
            },
        }
    }
}

/// A user's name as it stands in a record: without the signs that part it.
pub(super) fn encoded(user: &str) -> PercentEncode<'_> {
    utf8_percent_encode(user, NON_ALPHANUMERIC)
}

pub(super) const fn quality_word(quality: Quality) -> &'static str {
    match quality {
        Quality::Low => "low",
        Quality::Medium => "medium",
        Quality::High => "high",
        Quality::Auto => "auto",
    }
}

fn quality_of(word: &str) -> Option<Quality> {
    let all = [Quality::Low, Quality::Medium, Quality::High, Quality::Auto];
    all.into_iter().find(|quality| quality_word(*quality) == word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_read_back(user in ".{0,40}", class in 0u8..10, last in prop::option::of(0u64..1 << 50)) {
            let record = Record {
                source: SourceId::parse("DUBAI_POLICE").unwrap(),
                camera: CameraId::parse("cam-001.a_b").unwrap(),
                user,
                quality: Quality::Low,
                class: Class::new(class).unwrap(),
                created_ms: 1_800_000_000_000,
                last_packet_ms: last,
                node: "a-1".to_owned(),
            };
            prop_assert_eq!(Record::parse(&record.pack()), Some(record));
        }

        #[test]
        fn nothing_else_is_taken_for_a_record(text in ".{0,80}") {
            prop_assert!(Record::parse(&text).is_none_or(|record| record.pack().len() >= 8));
        }
    }
}
