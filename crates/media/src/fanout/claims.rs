//! Whose what comes from an address may be: a report names nobody.
//!
//! Whoever sent a check from there claims the address, and a check may have a forged source. So an
//! address has few claimants, and those who proved more than that do not give way to others.

use super::Fanout;
use crate::batch::Remote;

/// Claimants of an address, at most: each is asked whether a report is its own. One address has one
/// viewer, unless somebody sends checks with a forged source.
const MAX_CLAIMANTS: usize = 4;

/// What is known of a claimant, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Its own reports came, and its media goes there.
    Heard,
    /// Its media goes there.
    Served,
    /// It sent a check.
    Checked,
}

impl Fanout {
    /// A check of this viewer came from there. Beyond the bound one gives way that proved less or as
    /// little; if there is none, it is this one.
    pub(super) fn claim(&mut self, place: usize, remote: Remote) {
        self.by_remote.insert((remote, place));
        if self.claimants_of(remote).count() <= MAX_CLAIMANTS {
            return;
        }
        let worst =
            self.claimants_of(remote).max_by_key(|at| (self.standing(*at, remote), *at != place));
        if let Some(worst) = worst {
            self.by_remote.remove(&(remote, worst));
        }
    }

    /// The places of those who sent checks from there.
    pub(super) fn claimants(&self, remote: Remote) -> impl Iterator<Item = usize> + use<> {
        let mut places = [None; MAX_CLAIMANTS];
        for (place, known) in places.iter_mut().zip(self.claimants_of(remote)) {
            *place = Some(known);
        }
        places.into_iter().flatten()
    }

    fn claimants_of(&self, remote: Remote) -> impl Iterator<Item = usize> {
        let known = self.by_remote.range((remote, 0)..=(remote, usize::MAX));
        known.map(|(_, place)| *place)
    }

    fn standing(&self, place: usize, remote: Remote) -> Standing {
        match self.places.get(place) {
            Some(at) if at.viewer.route().remote() != remote => Standing::Checked,
            Some(at) if at.alive_at.is_some() => Standing::Heard,
            Some(_) => Standing::Served,
            None => Standing::Checked,
        }
    }
}
