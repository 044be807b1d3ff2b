//! A second account of the leases, kept from the ledger's answers alone.

use std::collections::{BTreeMap, BTreeSet};

use control::{Answer, CameraId, EndCause, Lease, Outcome, ReservationId, SourceId, Unit};

/// Who holds what, as far as the answers tell.
pub(crate) struct Book {
    unit: Unit,
    total: u32,
    limits: BTreeMap<SourceId, u32>,
    leases: BTreeMap<ReservationId, (SourceId, CameraId)>,
}

/// A lease that gave way.
type Victim = (ReservationId, (SourceId, CameraId));

impl Book {
    pub(crate) fn new(unit: Unit, total: u32, limits: BTreeMap<SourceId, u32>) -> Self {
        Self { unit, total, limits, leases: BTreeMap::new() }
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = &ReservationId> {
        self.leases.keys()
    }

    /// Notes what an operation came to.
    pub(crate) fn handle_outcome(&mut self, outcome: &Outcome) -> Result<(), String> {
        let mut gave_way = Vec::new();
        for ended in &outcome.ended {
            let held = self.remove(&ended.lease)?;
            if let EndCause::Preempted { by } = &ended.cause {
                may_give_way(&ended.lease, by, &outcome.answer)?;
                gave_way.push((ended.lease.id().clone(), held));
            }
        }
        match &outcome.answer {
            Answer::Reserved { lease, .. } => {
                let held = (lease.reservation.source.clone(), lease.reservation.camera.clone());
                if self.leases.insert(lease.id().clone(), held).is_some() {
                    return Err(format!("{} was granted twice", lease.id()));
                }
                self.check()?;
                self.check_need(gave_way)
            }
            Answer::Released { lease, .. } => self.remove(lease).map(drop),
            Answer::Renewed { lease, .. } if !self.leases.contains_key(lease.id()) => {
                Err(format!("{} was renewed and does not live", lease.id()))
            }
            Answer::Renewed { .. } | Answer::QuotaExceeded(_) | Answer::IdTaken => Ok(()),
            Answer::NotFound | Answer::Swept | Answer::Counted(_) | Answer::Snapshot(_) => Ok(()),
            Answer::Unavailable => Err("the ledger in memory was unavailable".to_owned()),
        }
    }

    fn remove(&mut self, lease: &Lease) -> Result<(SourceId, CameraId), String> {
        let removed = self.leases.remove(lease.id());
        removed.ok_or_else(|| format!("{} ended and did not live", lease.id()))
    }

    /// Nobody gives way where there was room, and never two to one.
    fn check_need(&mut self, mut gave_way: Vec<Victim>) -> Result<(), String> {
        let Some((id, held)) = gave_way.pop() else { return Ok(()) };
        if !gave_way.is_empty() {
            return Err(format!("{id} and others gave way to one"));
        }
        self.leases.insert(id.clone(), held);
        let had_room = self.check().is_ok();
        self.leases.remove(&id);
        if had_room { Err(format!("{id} gave way where there was room")) } else { Ok(()) }
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

/// A lease gives way to the one that was granted for it, if that is of a higher class.
fn may_give_way(lease: &Lease, by: &ReservationId, answer: &Answer) -> Result<(), String> {
    let id = lease.id();
    let Answer::Reserved { lease: newcomer, .. } = answer else {
        return Err(format!("{id} gave way to nobody"));
    };
    let (class, higher) = (lease.reservation.class, newcomer.reservation.class);
    if newcomer.id() != by || higher <= class {
        return Err(format!("{id} of {class:?} gave way to {} of {higher:?}", newcomer.id()));
    }
    Ok(())
}
