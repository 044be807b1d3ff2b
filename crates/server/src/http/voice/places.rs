//! How many connections there may be that last: WebSockets, and players of MP3. One address alone cannot
//! use all of them up.
//!
//! Which WebSockets may stay is the relay's to say, and this is the bound around it, those included that
//! are only saying goodbye: whoever comes from elsewhere gets as far as the relay, where an idle client of
//! a crowd gives way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// WebSockets beyond those that may stay: they are being told that there is no place, or say goodbye,
/// for 2 s each.
const BEYOND: usize = 256;

/// Of these, what one address may have: half, so that the other half is for everybody else.
const BEYOND_OF_ADDRESS: usize = BEYOND / 2;

/// All places. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::http) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all_max: usize,
    of_address_max: usize,
    taken: Mutex<Taken>,
}

/// At most as many as there are places, and no more addresses than that.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One place, until this is dropped.
#[derive(Debug)]
pub(in crate::http) struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    /// For WebSockets, of which `staying_max` may stay. None is taken.
    pub(in crate::http) fn of_sockets(staying_max: usize) -> Self {
        Self::new(staying_max + BEYOND, staying_max + BEYOND_OF_ADDRESS)
    }

    /// So many of all, and of one address. None is taken.
    pub(in crate::http) fn new(all_max: usize, of_address_max: usize) -> Self {
        Self(Arc::new(Inner { all_max, of_address_max, taken: Mutex::default() }))
    }

    /// `None`: all are taken, or all that this address may have.
    pub(in crate::http) fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.0.all_max || of_address >= self.0.of_address_max {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, of_address + 1);
        Some(Place { places: self.clone(), address })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here can panic halfway.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        match taken.by_address.get_mut(&self.address) {
            Some(of_address) if *of_address > 1 => *of_address -= 1,
            Some(_) | None => {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_leaves_room_for_the_others_and_what_is_dropped_is_free_again() {
        let places = Places::of_sockets(2);
        let mut crowd: Vec<Place> = std::iter::from_fn(|| places.take(address(1))).collect();
        assert_eq!(crowd.len(), 2 + BEYOND_OF_ADDRESS);

        let mut others: Vec<Place> = std::iter::from_fn(|| places.take(address(2))).collect();
        assert_eq!(crowd.len() + others.len(), 2 + BEYOND);
        assert!(places.take(address(3)).is_none(), "all are taken");

        crowd.pop();
        others.push(places.take(address(3)).unwrap());
        assert!(places.take(address(1)).is_none(), "all are taken again");

        drop((crowd, others));
        assert!(places.taken().by_address.is_empty());
        assert_eq!(places.taken().all, 0);
    }
}
