//! A second account of the leases, kept from the ledger's answers alone.

use std::collections::{BTreeMap, BTreeSet};

use control::{Answer, CameraId, Lease, Outcome, ReservationId, SourceId, Unit};

/// Who holds what, as far as the answers tell.
pub(crate) struct Book {
    unit: Unit,
    total: u32,
    limits: BTreeMap<SourceId, u32>,
    leases: BTreeMap<ReservationId, (SourceId, CameraId)>,
}

impl Book {
    pub(crate) fn new(unit: Unit, total: u32, limits: BTreeMap<SourceId, u32>) -> Self {
        Self { unit, total, limits, leases: BTreeMap::new() }
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = &ReservationId> {
        self.leases.keys()
    }

    /// Notes what an operation came to.
    pub(crate) fn handle_outcome(&mut self, outcome: &Outcome) -> Result<(), String> {
        for ended in &outcome.ended {
            self.remove(&ended.lease)?;
        }
        match &outcome.answer {
            Answer::Reserved { lease, .. } => {
                let held = (lease.reservation.source.clone(), lease.reservation.camera.clone());
                if self.leases.insert(lease.id().clone(), held).is_some() {
                    return Err(format!("{} was granted twice", lease.id()));
                }
                self.check()
            }
            Answer::Released { lease, .. } => self.remove(lease),
            Answer::Renewed { lease, .. } if !self.leases.contains_key(lease.id()) => {
                Err(format!("{} was renewed and does not live", lease.id()))
            }
            Answer::Renewed { .. } | Answer::QuotaExceeded(_) | Answer::IdTaken => Ok(()),
            Answer::NotFound | Answer::Swept | Answer::Counted(_) | Answer::Snapshot(_) => Ok(()),
            Answer::Unavailable => Err("the ledger in memory was unavailable".to_owned()),
        }
    }

    fn remove(&mut self, lease: &Lease) -> Result<(), String> {
        let removed = self.leases.remove(lease.id());
        removed.map(drop).ok_or_else(|| format!("{} ended and did not live", lease.id()))
    }

    /// No quota is exceeded.
    fn check(&self) -> Result<(), String> {
        let mut all = 0;
        for (source, limit) in &self.limits {
            let used = self.used(source);
            all += used;
            if used > *limit {
                return Err(format!("{source} uses {used} of {limit}"));
            }
        }
        if all > self.total {
            return Err(format!("all sources use {all} of {}", self.total));
        }
        Ok(())
    }

    fn used(&self, source: &SourceId) -> u32 {
        let of_source = self.leases.values().filter(|(owner, _)| owner == source);
        match self.unit {
            Unit::Viewer => of_source.count() as u32,
            Unit::Camera => {
                of_source.map(|(_, camera)| camera).collect::<BTreeSet<_>>().len() as u32
            }
        }
    }
}
