//! What nodes of a cluster tell each other of their parks. Which write holds is decided by its version; what
//! the settings file of a node says of a camera holds there, as over its own changes.

use std::collections::BTreeMap;

use control::CameraId;

use super::kept::Learned;
use super::{Cameras, Done, Entry, Known, Park, ParkError, put_if_room};
use crate::app::CameraChange;
use crate::config::{Carried, StoredStamp};
use crate::ingest::SourceUrl;
use crate::versions::Changes;

impl Park {
    /// What was written after a place in this node's order.
    pub(crate) fn changes(&self, epoch: &str, place: u64) -> Changes {
        self.0.known.keeper.versions().after(epoch, place)
    }

    /// Those that were written later than what is known here.
    pub(crate) fn wanted(&self, stamps: Vec<(String, StoredStamp)>) -> Vec<String> {
        let versions = self.0.known.keeper.versions();
        let news = stamps.into_iter().filter(|(id, stamp)| versions.is_news(id, stamp));
        news.map(|(id, _)| id).collect()
    }

    /// The last writes of cameras, with their passwords: to be sealed.
    pub(crate) async fn carried(&self, ids: Vec<String>) -> Result<Vec<Carried>, ParkError> {
        let park = self.clone();
        let read = tokio::task::spawn_blocking(move || park.0.known.keeper.carried(&ids));
        Ok(read.await.map_err(|_| ParkError::ShuttingDown)??)
    }

    /// Takes what another node wrote, and says how many of it were news.
    pub(crate) async fn learn(&self, carried: Vec<Carried>) -> Result<usize, ParkError> {
        self.act(move |known: &Known, cameras: &mut Cameras| {
            let learned = known.keeper.learn(carried, &known.file)?;
            let answer = learned.len();
            let mut change = CameraChange::default();
            for learned in learned {
                known.lay(cameras, learned, &mut change);
            }
            Ok(Done { answer, change, rows: Vec::new() })
        })
        .await
    }
}

impl Known {
    /// Lays one record over what was.
    fn lay(&self, cameras: &mut Cameras, learned: Learned, change: &mut CameraChange) {
        let Learned { id, record, .. } = learned;
        match self.standing(&id, record) {
            Some(entry) => {
                let entry = with_places_of(cameras, &id, entry);
                let put = entry.application(self.reach);
                if put_if_room(cameras, id.clone(), entry) {
                    tracing::info!(camera_id = %id, url = put.main.display(), "a camera is as another node has it");
                    change.put.push(put);
                }
            }
            None if cameras.remove(&id).is_some() => {
                tracing::info!(camera_id = %id, "a camera is deleted, as at another node");
                change.gone.push(id);
            }
            None => {}
        }
    }
}

/// Who publishes to a camera whose key stays goes on.
fn with_places_of(cameras: &BTreeMap<CameraId, Entry>, id: &CameraId, mut entry: Entry) -> Entry {
    if let Some(before) = cameras.get(id)
        && let (SourceUrl::Whip(old), SourceUrl::Whip(new)) =
            (&before.camera.url, &entry.camera.url)
        && old.digest() == new.digest()
    {
        entry.camera.url = before.camera.url.clone();
    }
    entry
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::super::Loaded;
    use super::*;
    use crate::app::CameraOrigin;
    use crate::config::{Row, from_toml};
    use crate::data_dir::DataDir;
    use crate::data_dir::tests::Temporary;
    use crate::database::Database;

    const GATE: &str = "[[cameras]]\nid = \"gate\"\nname = \"Gate\"\nsource = \"METRO\"\nurl = \"rtsp://u:canary@192.0.2.1/a\"\n";
    const OTHER_GATE: &str = "[[cameras]]\nid = \"gate\"\nname = \"Gate\"\nsource = \"METRO\"\nurl = \"rtsp://192.0.2.2/b\"\n";
    const NO_GATE: &str =
        "[[cameras]]\nid = \"door\"\nname = \"Door\"\nsource = \"METRO\"\nurl = \"test://\"\n";

    /// A node with this settings file and what its disk has.
    fn node(name: &str, file: &str, place: &DataDir) -> Loaded {
        let cluster = format!(
            "[store]\nurl = \"redis://127.0.0.1:1\"\n[cluster]\nnode = \"{name}\"\nurl = \"http://10.0.0.1:8080\"\n"
        );
        let config = from_toml(&format!("{cluster}{file}"));
        Loaded::read(&config, &Database::new(place.clone())).unwrap()
    }

    fn put(node: &mut Loaded, text: &str) {
        let Loaded { known, cameras } = node;
        let row = Row::of_json(text).unwrap();
        let before = row.id().and_then(|id| cameras.get(&id)).cloned();
        let camera = known.read_row(row, before.as_ref(), &known.sources).unwrap();
        known.keeper.keep(std::slice::from_ref(&camera), &known.file).unwrap();
        cameras.insert(camera.id.clone(), Entry { camera, origin: CameraOrigin::Stored });
    }

    fn delete(node: &mut Loaded, id: &str) {
        let Loaded { known, cameras } = node;
        let id = CameraId::parse(id).unwrap();
        known.keeper.forget(&id, known.file.get(&id)).unwrap();
        cameras.remove(&id);
    }

    /// `to` learns all that is news of `from`, and says how many that were.
    fn exchange(to: &mut Loaded, from: &Loaded) -> usize {
        let stamps = from.known.keeper.versions().after("", 0).stamps;
        let news = |(id, stamp): (String, StoredStamp)| {
            to.known.keeper.versions().is_news(&id, &stamp).then_some(id)
        };
        let ids: Vec<String> = stamps.into_iter().filter_map(news).collect();
        let carried = from.known.keeper.carried(&ids).unwrap();
        let learned = to.known.keeper.learn(carried, &to.known.file).unwrap();
        let count = learned.len();
        let mut change = CameraChange::default();
        for learned in learned {
            to.known.lay(&mut to.cameras, learned, &mut change);
        }
        count
    }

    /// Name, address with its secrets, and origin.
    fn gate(node: &Loaded) -> Option<(String, String, &'static str)> {
        let entry = node.cameras.get(&CameraId::parse("gate").unwrap())?;
        let url = entry.camera.url.to_secret().expose_secret().to_owned();
        Some((entry.camera.name.clone(), url, entry.origin.word()))
    }

    #[test]
    fn a_camera_reaches_a_node_with_another_key_file_and_is_there_after_a_restart() {
        let (Temporary(a), Temporary(b)) = (&Temporary::new(), &Temporary::new());
        let mut one = node("n1", NO_GATE, a);
        let mut other = node("n2", NO_GATE, b);
        // It has a key of its own.
        put(&mut other, r#"{"id": "own", "source": "METRO", "url": "rtsp://u:p@192.0.2.9/"}"#);
        put(
            &mut one,
            r#"{"id": "gate", "source": "METRO", "name": "G", "url": "rtsp://u:canary@192.0.2.1/a"}"#,
        );
        assert_eq!(exchange(&mut other, &one), 1);
        assert_eq!(exchange(&mut other, &one), 0);
        assert_eq!(exchange(&mut one, &other), 1, "its own, and not what it learned");
        assert_eq!(gate(&other), gate(&one));
        assert_eq!(gate(&one).unwrap().1, "rtsp://u:canary@192.0.2.1/a");
        drop(other);
        assert_eq!(gate(&node("n2", NO_GATE, b)), gate(&one));
    }

    #[test]
    fn a_change_of_a_camera_of_the_settings_file_holds_where_the_file_has_the_same_or_none() {
        let (Temporary(a), Temporary(b)) = (&Temporary::new(), &Temporary::new());
        let (Temporary(c), Temporary(d)) = (&Temporary::new(), &Temporary::new());
        let mut one = node("n1", GATE, a);
        let mut same = node("n2", GATE, b);
        let mut otherwise = node("n3", OTHER_GATE, c);
        let mut none = node("n4", NO_GATE, d);
        put(&mut one, r#"{"id": "gate", "name": "Changed"}"#);
        exchange(&mut otherwise, &one);
        // By way of one where it does not hold.
        exchange(&mut same, &otherwise);
        exchange(&mut none, &same);
        assert_eq!(gate(&one).unwrap().0, "Changed");
        assert_eq!((gate(&same), gate(&none)), (gate(&one), gate(&one)));
        let (_, url, origin) = gate(&otherwise).unwrap();
        assert_eq!((url.as_str(), origin), ("rtsp://192.0.2.2/b", "config"));
        drop(otherwise);
        assert_eq!(
            gate(&node("n3", OTHER_GATE, c)).unwrap().2,
            "config",
            "after a restart as well"
        );
        drop(same);
        let mut same = node("n2", GATE, b);
        assert_eq!(gate(&same), gate(&one));

        delete(&mut same, "gate");
        exchange(&mut one, &same);
        exchange(&mut none, &one);
        assert_eq!((gate(&one), gate(&none)), (None, None));
        drop(one);
        assert_eq!(gate(&node("n1", GATE, a)), None, "the file does not bring it back");
    }

    #[test]
    fn what_was_deleted_is_not_brought_back_by_a_node_that_was_down() {
        let (Temporary(a), Temporary(b)) = (&Temporary::new(), &Temporary::new());
        let mut one = node("n1", NO_GATE, a);
        let mut other = node("n2", NO_GATE, b);
        put(&mut other, r#"{"id": "gate", "source": "METRO", "url": "test://"}"#);
        exchange(&mut one, &other);
        delete(&mut one, "gate");
        drop(one);
        let mut one = node("n1", NO_GATE, a);
        assert_eq!(exchange(&mut one, &other), 0);
        exchange(&mut other, &one);
        assert_eq!((gate(&one), gate(&other)), (None, None));
        put(&mut other, r#"{"id": "gate", "source": "METRO", "url": "test://", "name": "Again"}"#);
        exchange(&mut one, &other);
        assert_eq!(gate(&one).unwrap().0, "Again");
    }

    #[test]
    fn a_stream_key_opens_the_camera_at_all_nodes_and_who_publishes_goes_on() {
        let (Temporary(a), Temporary(b)) = (&Temporary::new(), &Temporary::new());
        let mut one = node("n1", NO_GATE, a);
        let mut other = node("n2", NO_GATE, b);
        put(
            &mut one,
            r#"{"id": "gate", "source": "METRO", "url": "whip://a-key-of-twenty-characters"}"#,
        );
        exchange(&mut other, &one);
        let point = |node: &Loaded| {
            let url = &node.cameras[&CameraId::parse("gate").unwrap()].camera.url;
            let SourceUrl::Whip(point) = url else { panic!("{url:?}") };
            std::sync::Arc::clone(point)
        };
        let before = point(&other);
        assert!(before.admits("a-key-of-twenty-characters"));
        put(&mut one, r#"{"id": "gate", "name": "Named"}"#);
        exchange(&mut other, &one);
        assert_eq!(gate(&other).unwrap().0, "Named");
        assert!(std::sync::Arc::ptr_eq(&before, &point(&other)));
    }
}
