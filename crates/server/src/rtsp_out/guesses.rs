//! Wrong passwords by address, over all connections: how many may be tried, and how soon again.
//!
//! An address has some tries, and gets them back one by one. While it has none, no password from there
//! is looked at, so that the answer says nothing of it. Tokens are not counted: nobody guesses 256 bits,
//! and an expired one in some player's settings is not to keep a recorder out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::admission::address_of;

/// Wrong passwords before an address has to wait: two people who mistype theirs in two players.
const TRIES: u32 = 10;

/// How soon an address gets a try back: 17,000 a day, of the 10^14 passwords of eight letters and
/// digits. Short, since it is also how long somebody else behind the same NAT has to wait.
const TRY_INTERVAL: Duration = Duration::from_secs(5);

/// Addresses that are remembered, 100 bytes each. Beyond it the one that got nearest to having all of
/// its tries back is forgotten: who guesses from as many networks gains some tries, and no more.
const ADDRESSES_MAX: usize = 4_096;

/// What was tried in vain.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    /// When each address has all of its tries back. A try that failed adds an interval.
    until: HashMap<IpAddr, Instant>,
}

impl Guesses {
    /// Whether a password from there may be looked at; else how long not.
    pub(super) fn check(&self, ip: IpAddr, now: Instant) -> Result<(), Duration> {
        let Some(until) = self.until.get(&address_of(ip)) else { return Ok(()) };
        let owed = until.saturating_duration_since(now);
        let wait = owed.saturating_sub(TRY_INTERVAL * (TRIES - 1));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// One was looked at, and wrong.
    pub(super) fn note_wrong(&mut self, ip: IpAddr, now: Instant) {
        let address = address_of(ip);
        if self.until.len() >= ADDRESSES_MAX && !self.until.contains_key(&address) {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() >= ADDRESSES_MAX && !self.until.contains_key(&address) {
            let nearest = self.until.iter().min_by_key(|(_, until)| **until);
            let nearest = nearest.map(|(address, _)| *address);
            nearest.and_then(|address| self.until.remove(&address));
        }
        let until = self.until.entry(address).or_insert(now);
        *until = (*until).max(now) + TRY_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    /// Passwords that are looked at when one is tried every 100 ms.
    fn looked_at(guesses: &mut Guesses, ip: IpAddr, begin: Instant, time: Duration) -> u32 {
        let step = Duration::from_millis(100);
        let steps = (time.as_millis() / step.as_millis()) as u32;
        let mut looked_at = 0;
        for now in (0..steps).map(|number| begin + step * number) {
            if guesses.check(ip, now).is_ok() {
                looked_at += 1;
                guesses.note_wrong(ip, now);
            }
        }
        looked_at
    }

    #[test]
    fn an_address_has_some_tries_and_gets_them_back_one_by_one() {
        let (mut guesses, begin) = (Guesses::default(), Instant::now());
        let hour = Duration::from_secs(3_600);
        assert_eq!(looked_at(&mut guesses, ip(1), begin, hour), TRIES + 720 - 1);
        assert!(guesses.check(ip(2), begin).is_ok(), "others are not concerned");
        let later = begin + hour;
        assert_eq!(looked_at(&mut guesses, ip(1), later + hour, Duration::from_secs(1)), TRIES);
    }

    #[test]
    fn nobody_waits_longer_than_an_interval() {
        let (mut guesses, begin) = (Guesses::default(), Instant::now());
        for _ in 0..TRIES {
            assert_eq!(guesses.check(ip(1), begin), Ok(()));
            guesses.note_wrong(ip(1), begin);
        }
        assert_eq!(guesses.check(ip(1), begin), Err(TRY_INTERVAL));
        assert_eq!(guesses.check(ip(1), begin + TRY_INTERVAL), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_worst_are_not_forgotten() {
        let (mut guesses, begin) = (Guesses::default(), Instant::now());
        (0..TRIES).for_each(|_| guesses.note_wrong(ip(0), begin));
        for number in 1..2 * ADDRESSES_MAX as u32 {
            guesses.note_wrong(ip(number), begin);
            assert!(guesses.until.len() <= ADDRESSES_MAX);
        }
        assert!(guesses.check(ip(0), begin).is_err());
        guesses.note_wrong(ip(u32::MAX >> 8), begin + Duration::from_secs(3_600));
        assert_eq!(guesses.until.len(), 1, "those who have all tries back are forgotten");
    }
}
