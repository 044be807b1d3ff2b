//! Reservations, releases and heartbeats, put together into one call of a script. It does them one
//! after the other, as if they had been asked for one by one: one that is refused hinders no other.

use std::time::Duration;

use control::{MAX_LEASES, Reservation, ReservationId, SourceId};

use super::book::{Book, millis};
use super::connection::Call;
use super::record;
use super::scripts::SCRIPTS;
use super::words::Words;

/// Of one call, see `lua/operate.lua`.
#[derive(Debug, Default)]
pub(super) struct Operations {
    /// Sources whose limits or counts it touches, as far as they are known here; few.
    sources: Vec<SourceId>,
    keys: Words,
    args: Words,
}

impl Operations {
    /// `name` is the camera's.
    pub(super) fn reserve(&mut self, book: &Book, reservation: &Reservation, name: &str) {
        let Reservation { id, camera, source, user, quality, class } = reservation;
        self.name(source);
        self.begin(book, "reserve", id);
        self.args.push(source.as_str());
        self.args.push(camera.as_str());
        self.args.write(format_args!("{}", record::encoded(user)));
        self.args.push(record::quality_word(*quality));
        self.args.write(format_args!("{}", class.get()));
        self.args.push(name);
    }

    pub(super) fn release(&mut self, book: &Book, id: &ReservationId) {
        // Of a lease of another node the source is not known here.
        if let Some(own) = book.own.get(id) {
            self.name(&own.lease.reservation.source);
        }
        self.begin(book, "release", id);
    }

    pub(super) fn heartbeat(&mut self, book: &Book, id: &ReservationId, extend: Option<Duration>) {
        let longest = book.policy.heartbeat;
        self.begin(book, "heartbeat", id);
        self.args.push(millis(extend.map_or(longest, |asked| asked.min(longest))));
    }

    pub(super) fn into_call(self, book: &Book) -> Call<'static> {
        let mut keys = Words::from_iter([book.good_limits_key()]);
        let mut args = Words::from_iter([
            book.epoch.clone(),
            self.sources.len().to_string(),
            book.quota.total().to_string(),
            book.quota.user_limit().map(|limit| limit.to_string()).unwrap_or_default(),
            millis(book.policy.initial),
            MAX_LEASES.to_string(),
        ]);
        for source in &self.sources {
            keys.extend([book.count_key(source), book.limit_key(source)]);
            args.extend([source.to_string(), book.configured(source)]);
        }
        keys.append(&self.keys);
        args.append(&self.args);
        book.script(&SCRIPTS.operate, &keys, &args)
    }

    fn name(&mut self, source: &SourceId) {
        if !self.sources.contains(source) {
            self.sources.push(source.clone());
        }
    }

    fn begin(&mut self, book: &Book, what: &str, id: &ReservationId) {
        book.add_lease_keys(&mut self.keys, id);
        self.args.push(what);
        self.args.push(id.as_str());
    }
}
