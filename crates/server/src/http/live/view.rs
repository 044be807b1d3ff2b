//! What one caller sees of the whole state, and what is news of it since he last looked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use control::{CameraId, SourceId};

use crate::app::{About, CameraSnapshot, Snapshot, SourceSnapshot};
use crate::http::api::{stats_answer, usage};
use crate::http::wire::StatsAnswer;
use crate::http::wire::live::{AgencyLimit, Alert, CameraStatus, News};

/// The state as one caller sees it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// With an empty timestamp.
    stats: StatsAnswer,
    /// In the order of their ids.
    cameras: Vec<Standing>,
    limits: BTreeMap<SourceId, u32>,
    /// Those that are raised, by what they are about.
    alerts: BTreeMap<(&'static str, String), Alert>,
}

/// How a camera is.
#[derive(Debug, Clone)]
struct Standing {
    about: Arc<About>,
    status: &'static str,
    state: &'static str,
    reason: Option<String>,
}

impl View {
    /// `snapshot` holds what the caller may see, no more.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut stats = stats_answer(snapshot, SystemTime::UNIX_EPOCH);
        stats.timestamp.clear();
        let cameras = snapshot.cameras.iter();
        let sources = snapshot.sources.iter();
        let limits = sources.clone().map(|source| (source.id.clone(), source.limit));
        let full = sources.filter(|source| source.current >= source.limit).map(source_full);
        let errors = cameras.clone().filter(|camera| camera.status == "ERROR").map(camera_error);
        let total = (snapshot.total_current >= snapshot.total_limit).then(|| total_full(snapshot));
        let lost = snapshot.is_store_lost.then(store_lost);
        let missing = snapshot.missing_nodes.iter().map(|node| node_missing(node));
        let differing = snapshot.differing_nodes.iter();
        let differing = differing.map(|(node, sentence)| node_differs(node, sentence));
        let alerts = full.chain(errors).chain(total).chain(lost).chain(missing).chain(differing);
        Self {
            stats,
            cameras: cameras.map(Standing::of).collect(),
            limits: limits.collect(),
            alerts: alerts.map(|alert| (key(&alert), alert)).collect(),
        }
    }

    /// The figures at `timestamp`.
    pub(super) fn stats(&self, timestamp: &str) -> News {
        let stats = StatsAnswer { timestamp: timestamp.to_owned(), ..self.stats.clone() };
        News::StreamStats(Box::new(stats))
    }

    /// What a caller is told who knew nothing.
    pub(super) fn first(&self, timestamp: &str) -> Vec<News> {
        let raised = self.alerts.values().cloned().map(News::Alert);
        std::iter::once(self.stats(timestamp)).chain(raised).collect()
    }

    /// What a caller is told who saw `before`.
    pub(super) fn since(&self, before: &Self, timestamp: &str) -> Vec<News> {
        let stats = (self.stats != before.stats).then(|| self.stats(timestamp));
        let changed =
            self.cameras.iter().filter(|now| before.standing(&now.about.id) != Some(*now));
        let gone = before.cameras.iter().filter(|last| self.standing(&last.about.id).is_none());
        let cameras = changed.map(Standing::told).chain(gone.map(Standing::told_removed));
        let cameras = cameras.map(News::CameraStatus);
        let raised = self.alerts.iter().filter(|(key, _)| !before.alerts.contains_key(*key));
        let over = before.alerts.iter().filter(|(key, _)| !self.alerts.contains_key(*key));
        let over = over.map(|(_, alert)| Alert { active: false, ..alert.clone() });
        let alerts = raised.map(|(_, alert)| alert.clone()).chain(over).map(News::Alert);
        stats.into_iter().chain(cameras).chain(self.limits_since(before)).chain(alerts).collect()
    }

    fn standing(&self, id: &CameraId) -> Option<&Standing> {
        let place = self.cameras.binary_search_by(|camera| camera.about.id.cmp(id));
        self.cameras.get(place.ok()?)
    }

    fn limits_since(&self, before: &Self) -> impl Iterator<Item = News> {
        let changed = self.limits.iter().filter_map(|(source, limit)| {
            let previous = before.limits.get(source).filter(|previous| *previous != limit)?;
            let current = self.stats.source_counts.get(source.as_str()).copied();
            let usage = usage(current.unwrap_or_default(), *limit);
            Some(AgencyLimit {
                source: source.to_string(),
                current: usage.current,
                limit: usage.limit,
                previous_limit: *previous,
                available: usage.available,
            })
        });
        changed.map(News::AgencyLimitUpdate)
    }
}

/// As it is told: what is not told makes no difference.
impl PartialEq for Standing {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (&self.about, &other.about);
        let is_same = Arc::ptr_eq(one, two)
            || (&one.id, &one.name, &one.source) == (&two.id, &two.name, &two.source);
        is_same
            && (self.status, self.state, &self.reason) == (other.status, other.state, &other.reason)
    }
}

impl Standing {
    fn of(camera: &CameraSnapshot) -> Self {
        Self {
            about: Arc::clone(&camera.about),
            status: camera.status,
            state: camera.state,
            reason: camera.reason.clone(),
        }
    }

    fn told(&self) -> CameraStatus {
        CameraStatus {
            camera_id: self.about.id.to_string(),
            camera_name: self.about.name.clone(),
            source: self.about.source.to_string(),
            status: self.status,
            state: self.state,
            reason: self.reason.clone(),
        }
    }

    fn told_removed(&self) -> CameraStatus {
        CameraStatus { status: "REMOVED", state: "", reason: None, ..self.told() }
    }
}

fn key(alert: &Alert) -> (&'static str, String) {
    let subject = alert.camera_id.as_ref().or(alert.source.as_ref()).or(alert.node.as_ref());
    (alert.code, subject.cloned().unwrap_or_default())
}

fn source_full(source: &SourceSnapshot) -> Alert {
    let SourceSnapshot { name, name_ar, current, limit, .. } = source;
    Alert {
        code: "QUOTA_FULL",
        active: true,
        source: Some(source.id.to_string()),
        camera_id: None,
        node: None,
        message_en: format!("{name} uses all of its quota: {current} of {limit}"),
        message_ar: format!("استنفدت {name_ar} حصتها كاملة: {current} من {limit}"),
    }
}

fn total_full(snapshot: &Snapshot) -> Alert {
    let (current, limit) = (snapshot.total_current, snapshot.total_limit);
    Alert {
        code: "QUOTA_FULL",
        active: true,
        source: Some("TOTAL".to_owned()),
        camera_id: None,
        node: None,
        message_en: format!("all sources together use all of the quota: {current} of {limit}"),
        message_ar: format!("استنفدت جميع الجهات الحصة الكلية: {current} من {limit}"),
    }
}

fn camera_error(camera: &CameraSnapshot) -> Alert {
    let reason = camera.reason.as_deref().unwrap_or(camera.state);
    Alert {
        code: "CAMERA_ERROR",
        active: true,
        source: Some(camera.about.source.to_string()),
        camera_id: Some(camera.about.id.to_string()),
        node: None,
        message_en: format!("{}: {reason}", camera.about.name),
        message_ar: format!("الكاميرا {} لا تعمل", camera.about.name_ar),
    }
}

fn store_lost() -> Alert {
    Alert {
        code: "STORE_LOST",
        active: true,
        source: None,
        camera_id: None,
        node: None,
        message_en: "the store of reservations does not answer; who watches goes on watching"
            .to_owned(),
        message_ar: "مخزن الحجوزات لا يستجيب؛ البث الجاري مستمر".to_owned(),
    }
}

fn node_missing(node: &str) -> Alert {
    Alert {
        code: "NODE_MISSING",
        active: true,
        source: None,
        camera_id: None,
        node: Some(node.to_owned()),
        message_en: format!("node {node} does not answer; what only it knows is not shown"),
        message_ar: format!("الخادم {node} لا يستجيب؛ ما يعرفه وحده غير ظاهر"),
    }
}

fn node_differs(node: &str, sentence: &str) -> Alert {
    Alert {
        code: "NODE_DIFFERS",
        active: true,
        source: None,
        camera_id: None,
        node: Some(node.to_owned()),
        message_en: format!("node {node}: {sentence}"),
        message_ar: format!("إعدادات الخادم {node} تختلف: الساعة أو المفاتيح"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::tests::snapshot;
    use crate::http::wire::live::Told;

    const NOW: &str = "2027-01-15T08:00:00.000Z";

    /// What is told of a change, as the client reads it.
    fn news(change: impl FnOnce(&mut Snapshot)) -> Vec<Value> {
        let before = snapshot();
        let mut after = before.clone();
        change(&mut after);
        let news = View::of(&after).since(&View::of(&before), NOW);
        let told = news.into_iter().map(|news| Told { news, timestamp: NOW.to_owned() });
        told.map(|told| serde_json::to_value(told).unwrap()).collect()
    }

    #[test]
    fn nothing_is_told_of_what_nobody_sees() {
        assert_eq!(news(|after| after.media.packets_sent += 1_000), Vec::<Value>::new());
    }

    #[test]
    fn a_viewer_more_is_told_with_all_figures() {
        let told = news(|after| {
            after.total_current += 1;
            after.sources[0].current += 1;
        });
        assert_eq!(told.len(), 1);
        assert_eq!(
            (&told[0]["type"], &told[0]["timestamp"]),
            (&json!("STREAM_STATS"), &json!(NOW))
        );
        let stats = &told[0]["data"];
        assert_eq!((&stats["total"]["current"], &stats["timestamp"]), (&json!(3), &json!(NOW)));
        assert_eq!(stats["source_counts"]["METRO"], 3);
    }

    #[test]
    fn a_camera_in_another_state_is_told_and_one_in_error_raises_an_alert() {
        let told = news(|after| {
            after.cameras[0].status = "ERROR";
            after.cameras[0].state = "unauthorized";
            after.cameras[0].reason = Some("the camera refuses the password".to_owned());
        });
        let types: Vec<_> = told.iter().map(|told| told["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["CAMERA_STATUS", "ALERT"]);
        assert_eq!(told[0]["data"]["camera_id"], "cam-1");
        assert_eq!(told[0]["data"]["status"], "ERROR");
        let alert = &told[1]["data"];
        assert_eq!((&alert["code"], &alert["active"]), (&json!("CAMERA_ERROR"), &json!(true)));
        assert!(alert["message_en"].as_str().unwrap().ends_with("refuses the password"), "{alert}");
    }

    #[test]
    fn a_changed_limit_is_told_and_a_full_quota_raises_an_alert() {
        let told = news(|after| after.sources[0].limit = 2);
        let types: Vec<_> = told.iter().map(|told| told["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["STREAM_STATS", "AGENCY_LIMIT_UPDATE", "ALERT"]);
        let update = json!({
            "source": "METRO", "current": 2, "limit": 2, "previous_limit": 30, "available": 0,
        });
        assert_eq!(told[1]["data"], update);
        assert_eq!(told[2]["data"]["code"], "QUOTA_FULL");
        assert_eq!(told[2]["data"]["source"], "METRO");
    }

    #[test]
    fn an_alert_that_is_over_is_told_once_as_such() {
        let before = Snapshot { is_store_lost: true, ..snapshot() };
        let first = View::of(&before).first(NOW);
        assert!(
            matches!(first.as_slice(), [News::StreamStats(_), News::Alert(alert)] if alert.active)
        );
        let told = View::of(&snapshot()).since(&View::of(&before), NOW);
        let [News::Alert(alert)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((alert.code, alert.active), ("STORE_LOST", false));
    }

    #[test]
    fn a_camera_that_is_removed_is_told() {
        let told = news(|after| after.cameras.clear());
        let removed = told.iter().find(|told| told["type"] == "CAMERA_STATUS").unwrap();
        assert_eq!(removed["data"]["status"], "REMOVED");
    }
}
