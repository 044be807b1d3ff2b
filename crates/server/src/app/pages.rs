//! Pages that are closed without a word: a browser that is short of time kills a page before it says goodbye.
//!
//! A page names itself, by a random name, with each reservation and with the WebSocket that tells it figures.
//! Whatever ends the page ends that socket too. A viewer of whom nothing is heard after his page's last socket
//! ended has left with it, and his reservation is released, long before its lease runs out.
//!
//! A socket that ends alone takes no place away: the page opens another one, its packets go on, or it calls.
//! A page that is closed while it loads has no socket yet: where nothing more comes of what it reserved, neither
//! an offer nor a socket, it was that. Nothing here concerns who names no page.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use control::{ReservationId, Timestamp};
use engine::Request;
use tokio::sync::oneshot;
use tracing::info;

use super::App;
use super::actor::{Actor, Command, Waiting};

/// From the end of a page's last socket to the look at its viewers. A page opens its socket again after 1 s,
/// and a browser checks its path every 2.5 s; with what a look takes, and a camera's puller to end, it is
/// below the 5 s that operators are promised.
const LOOK_AFTER: Duration = Duration::from_secs(3);

/// What is heard this long after the socket may have been sent before it ended. Packets and sockets are read by
/// different threads, and a busy machine lets one of them wait.
const ON_THE_WAY: Duration = Duration::from_millis(400);

/// How long a page is known to be gone: what it asked for last is answered within the 10 s that it would wait
/// for an answer, and comes here within as many.
const GONE_KEPT: Duration = Duration::from_secs(20);

/// Pages that are known to be gone. A server has [`crate::http`]'s 256 sockets, so that all of them come and go
/// a second for 16 s; the leases of those beyond run out.
const GONE_MAX: usize = 4_096;

/// Longest name of a page, in characters: a UUID has 36.
const NAME_LENGTH_MAX: usize = 64;

/// What a page calls itself: 1 to 64 of `A-Z a-z 0-9 - _`, random, so that nobody else can guess it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PageName(String);

impl PageName {
    /// `None`: it is no such name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let admits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_name = (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.bytes().all(admits);
        is_name.then(|| Self(text.to_owned()))
    }
}

/// What happens to a page's sockets.
pub(super) enum PageCommand {
    Opened { page: PageName },
    Closed { page: PageName },
}

impl App {
    /// A page opened a socket; [`App::page_closed`] is told of its end.
    pub(crate) async fn page_opened(&self, page: PageName) {
        // An application that has ended has no viewers.
        let _ = self.commands.send(Command::Page(PageCommand::Opened { page })).await;
    }

    /// A socket of a page ended.
    pub(crate) async fn page_closed(&self, page: PageName) {
        let _ = self.commands.send(Command::Page(PageCommand::Closed { page })).await;
    }
}

/// Reservations that were given back since the start because nobody was there for them any more.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeftFigures {
    /// Their page was gone.
    pub(crate) page_gone: u64,
    /// Who asked had hung up before he was told of it.
    pub(crate) hung_up: u64,
}

/// Which viewers are whose page's.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Open ones; pages without are not here. Bounded by the sockets.
    sockets: HashMap<PageName, u32>,
    /// When the last socket ended. At most [`GONE_MAX`].
    gone: HashMap<PageName, Timestamp>,
    /// When to look. One a page that is gone, and one a viewer that is granted a place without a socket.
    due: BTreeSet<(Timestamp, PageName)>,
    /// Bounded by the leases.
    viewers: HashMap<ReservationId, PageViewer>,
    pub(super) figures: LeftFigures,
}

#[derive(Debug)]
struct PageViewer {
    page: PageName,
    granted: Timestamp,
    /// When its page last called for it.
    called: Option<Timestamp>,
}

impl PageViewer {
    /// Whether he left with his page, which has no socket since `gone`, or never had one. `heard` is when the last
    /// packet came from him.
    fn has_left(&self, gone: Option<Timestamp>, heard: Option<Timestamp>, now: Timestamp) -> bool {
        let since = gone.map_or(self.granted, |gone| gone.max(self.granted));
        let last = heard.max(self.called);
        let is_silent = match gone {
            Some(_) => last.is_none_or(|last| last <= since + ON_THE_WAY),
            None => last.is_none(),
        };
        is_silent && since + LOOK_AFTER <= now
    }
}

impl Pages {
    /// When to look next.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A page was granted a place.
    pub(super) fn granted(&mut self, page: PageName, reservation: ReservationId, now: Timestamp) {
        if !self.sockets.contains_key(&page) {
            self.due.insert((now + LOOK_AFTER, page.clone()));
        }
        self.viewers.insert(reservation, PageViewer { page, granted: now, called: None });
    }

    /// A page called for a place that it has.
    pub(super) fn called(&mut self, reservation: &ReservationId, now: Timestamp) {
        if let Some(viewer) = self.viewers.get_mut(reservation) {
            viewer.called = Some(now);
        }
    }

    /// A reservation ended.
    pub(super) fn ended(&mut self, reservation: &ReservationId) {
        self.viewers.remove(reservation);
    }

    fn opened(&mut self, page: PageName) {
        self.gone.remove(&page);
        *self.sockets.entry(page).or_default() += 1;
    }

    fn closed(&mut self, page: PageName, now: Timestamp) {
        let Some(open) = self.sockets.get_mut(&page) else { return };
        *open -= 1;
        if *open > 0 {
            return;
        }
        self.sockets.remove(&page);
        self.gone.retain(|_, since| *since + GONE_KEPT > now);
        if self.gone.len() < GONE_MAX {
            self.gone.insert(page.clone(), now);
            self.due.insert((now + LOOK_AFTER, page));
        }
    }

    /// Viewers that left with their pages. `heard` tells when the last packet came from one.
    fn take_left(
        &mut self,
        now: Timestamp,
        heard: impl Fn(&ReservationId) -> Option<Timestamp>,
    ) -> Vec<ReservationId> {
        let mut left = Vec::new();
        while let Some((due, page)) = self.due.first().cloned()
            && due <= now
        {
            self.due.remove(&(due, page.clone()));
            if self.sockets.contains_key(&page) {
                continue;
            }
            let gone = self.gone.get(&page).copied();
            let viewers = self.viewers.iter().filter(|(_, viewer)| viewer.page == page);
            let gone_too = viewers.filter(|(id, viewer)| viewer.has_left(gone, heard(id), now));
            left.extend(gone_too.map(|(id, _)| id.clone()));
        }
        left.sort_unstable();
        left.dedup();
        left
    }
}

impl Actor {
    pub(super) fn handle_page_command(&mut self, command: PageCommand) {
        match command {
            PageCommand::Opened { page } => self.pages.opened(page),
            PageCommand::Closed { page } => self.pages.closed(page, self.clock.now()),
        }
    }

    /// Releases what closed pages have left behind.
    pub(super) fn end_left_behind(&mut self) {
        let now = self.clock.now();
        if self.pages.next_timeout().is_none_or(|due| due > now) {
            return;
        }
        let (engine, peers) = (&self.engine, &self.peers);
        let heard = |id: &ReservationId| peers.get(&engine.session(id)?.viewer?)?.heard;
        for reservation in self.pages.take_left(now, heard) {
            self.pages.ended(&reservation);
            self.pages.figures.page_gone += 1;
            info!(reservation_id = %reservation, "its page is gone, and nothing was heard of the viewer since");
            self.release_for_nobody(reservation);
        }
    }

    /// Ends a lease for which nobody waits.
    pub(super) fn release_for_nobody(&mut self, reservation: ReservationId) {
        let (reply, _) = oneshot::channel();
        let waiting = Waiting::Release(reservation.clone(), reply);
        self.ask(Request::Release { reservation }, waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ReservationId {
        ReservationId::parse(&format!("00000000-0000-4000-8000-{number:012}")).unwrap()
    }

    fn page(name: &str) -> PageName {
        PageName::parse(name).unwrap()
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn left(pages: &mut Pages, now: u64, heard: &[(u64, u64)]) -> Vec<ReservationId> {
        let heard: HashMap<_, _> = heard.iter().map(|(of, ms)| (id(*of), at(*ms))).collect();
        pages.take_left(at(now), |id| heard.get(id).copied())
    }

    /// One page with a socket, and two viewers since the beginning.
    fn watched() -> Pages {
        let mut pages = Pages::default();
        pages.opened(page("a"));
        pages.opened(page("b"));
        (1..=2).for_each(|number| pages.granted(page("a"), id(number), at(0)));
        pages.granted(page("b"), id(3), at(0));
        pages
    }

    #[test]
    fn viewers_leave_with_their_page_and_only_they() {
        let mut pages = watched();
        pages.closed(page("a"), at(10_000));
        assert_eq!(pages.next_timeout(), Some(at(13_000)));
        assert!(left(&mut pages, 12_999, &[]).is_empty());
        // The last packet was on its way when the socket ended.
        assert_eq!(left(&mut pages, 13_000, &[(1, 10_300)]), [id(1), id(2)]);
        assert_eq!(pages.next_timeout(), None);
    }

    #[test]
    fn a_viewer_whose_packets_go_on_stays_and_so_does_one_that_calls() {
        let mut pages = watched();
        pages.closed(page("a"), at(10_000));
        pages.called(&id(2), at(11_000));
        assert!(left(&mut pages, 13_000, &[(1, 12_900)]).is_empty());
        assert!(
            left(&mut pages, 99_000, &[(1, 12_900)]).is_empty(),
            "from here on the lease is all"
        );
    }

    #[test]
    fn a_page_that_opens_another_socket_is_there() {
        let mut pages = watched();
        pages.closed(page("a"), at(10_000));
        pages.opened(page("a"));
        assert!(left(&mut pages, 13_000, &[]).is_empty());
        pages.opened(page("a"));
        pages.closed(page("a"), at(20_000));
        assert_eq!(pages.next_timeout(), None, "one of two");
        pages.closed(page("a"), at(21_000));
        assert_eq!(left(&mut pages, 24_000, &[]), [id(1), id(2)]);
    }

    #[test]
    fn what_a_page_asked_for_before_it_went_and_was_granted_after_is_released() {
        let mut pages = watched();
        pages.closed(page("a"), at(10_000));
        pages.granted(page("a"), id(4), at(12_000));
        assert_eq!(left(&mut pages, 13_000, &[]), [id(1), id(2)]);
        [1, 2].iter().for_each(|number| pages.ended(&id(*number)));
        assert_eq!(left(&mut pages, 15_000, &[]), [id(4)]);
    }

    #[test]
    fn a_page_without_a_socket_keeps_what_it_makes_use_of() {
        let mut pages = Pages::default();
        (1..=3).for_each(|number| pages.granted(page("a"), id(number), at(0)));
        pages.called(&id(1), at(0));
        assert_eq!(left(&mut pages, 3_000, &[(2, 100)]), [id(3)]);
        pages.granted(page("b"), id(4), at(4_000));
        pages.opened(page("b"));
        assert!(left(&mut pages, 7_000, &[]).is_empty(), "its socket was slower than its request");
    }

    #[test]
    fn what_ended_is_forgotten() {
        let mut pages = watched();
        (1..=3).for_each(|number| pages.ended(&id(number)));
        pages.closed(page("a"), at(10_000));
        pages.closed(page("a"), at(10_000));
        assert!(left(&mut pages, 13_000, &[]).is_empty() && pages.viewers.is_empty());
    }

    #[test]
    fn pages_that_are_gone_are_bounded_and_forgotten() {
        let mut pages = Pages::default();
        for number in 0..=GONE_MAX {
            pages.opened(page(&number.to_string()));
            pages.closed(page(&number.to_string()), at(0));
        }
        assert_eq!((pages.gone.len(), pages.due.len()), (GONE_MAX, GONE_MAX));
        assert!(left(&mut pages, 3_000, &[]).is_empty() && pages.due.is_empty());
        pages.opened(page("a"));
        pages.closed(page("a"), at(30_000));
        assert_eq!((pages.gone.len(), pages.sockets.len()), (1, 0));
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(PageName::parse("67e55044-10b1-426f-9247-bb680e5fe0c8").is_some());
        for text in ["", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert_eq!(PageName::parse(text), None, "{text}");
        }
    }
}
