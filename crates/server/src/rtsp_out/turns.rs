//! How many cameras one address may have described at once.
//!
//! A description holds a camera without quota, and holds are few ([`engine::MAX_HOLDS`]): without a share
//! for each address, one recorder that comes back would take all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::MAX_HOLDS;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::admission::address_of;

/// Descriptions of one address that are under way or not played yet: four addresses find room. A
/// recorder that begins takes 50 ms for a camera that runs and 2 s for one that does not, which makes
/// eight cold cameras a second.
pub(super) const TURNS_AN_ADDRESS: usize = MAX_HOLDS / 4;

/// How long a description waits for its turn. Players give up after 10 s, and the camera has its time too.
pub(super) const TURN_WAIT_MAX: Duration = Duration::from_secs(3);

/// The turns of all addresses. No more of them than connections.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<IpAddr, Arc<Semaphore>>>);

/// One of them, as long as it lives.
#[derive(Debug)]
pub(super) struct Turn(
    #[expect(dead_code, reason = "it is given back when dropped")] OwnedSemaphorePermit,
);

impl Turns {
    /// Waits for a turn; `None` if there was none in time.
    pub(super) async fn take(&self, ip: IpAddr) -> Option<Turn> {
        let turns = self.of(ip);
        let taken = tokio::time::timeout(TURN_WAIT_MAX, turns.acquire_owned()).await;
        // It is never closed.
        taken.ok()?.ok().map(Turn)
    }

    /// Those of an address; addresses that have and want none are forgotten.
    fn of(&self, ip: IpAddr) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turns| Arc::strong_count(turns) > 1);
        let new = || Arc::new(Semaphore::new(TURNS_AN_ADDRESS));
        Arc::clone(turns.entry(address_of(ip)).or_insert_with(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_has_its_share_and_is_forgotten_when_it_has_none() {
        let turns = Turns::default();
        let [one, other] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
        let mut taken = Vec::new();
        for _ in 0..TURNS_AN_ADDRESS {
            taken.push(turns.take(one).await.unwrap());
        }
        let mut next = std::pin::pin!(turns.take(one));
        assert!(futures::poll!(next.as_mut()).is_pending());
        assert!(turns.take(other).await.is_some(), "others are not concerned");
        taken.pop();
        assert!(next.await.is_some());
        drop(taken);
        turns.of(other);
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
