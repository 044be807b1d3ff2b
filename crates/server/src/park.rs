//! The camera park: the cameras of the settings file, and those that are added and changed over the API and
//! kept in the database.
//!
//! **The last change holds.** What the API changes or removes stays so over a restart, until the camera's
//! entry in the settings file is edited: then the file holds again. A camera that was added over the API
//! gives way to one of the same id that is written into the file later.
//!
//! A change is first kept, then applied to the running application; one that cannot be kept is not made.
//! Who may change what is decided by the caller, who is asked for each camera with its source.

mod changes;
mod kept;
mod learning;
mod probing;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use control::{CameraId, SourceId};
use engine::MAX_CAMERAS;
use secrecy::SecretString;
use tokio::sync::OwnedMutexGuard;

use crate::app::{App, CameraChange, CameraConfig, CameraOrigin, KeyRefusal};
use crate::audit;
use crate::config::{self, Camera, Config, Problem, Problems, Row, SHARED_KEY, Source};
use crate::database::{Database, DatabaseError};
use crate::ingest::{Reach, SourceUrl};
use crate::vault::{Vault, VaultError};
use kept::{Keeper, Record};

pub(crate) use probing::probe_unwatched;

/// Most problems that are told of one import: each line of a park of 500 is wrong in two ways. Who has more has
/// made one mistake many times.
const PROBLEMS_TOLD: usize = 1_000;

/// Handle to the park; cheap to clone.
#[derive(Clone)]
pub(crate) struct Park(Arc<Inner>);

struct Inner {
    app: App,
    known: Known,
    cameras: Arc<tokio::sync::Mutex<Cameras>>,
}

/// What does not change.
struct Known {
    keeper: Keeper,
    /// Those of the settings file, whether they hold or not.
    file: BTreeMap<CameraId, Camera>,
    sources: Vec<Source>,
    /// Where addresses of the API may lead.
    reach: Reach,
}

/// The cameras that hold, at most [`MAX_CAMERAS`].
type Cameras = BTreeMap<CameraId, Entry>;

#[derive(Debug, Clone)]
struct Entry {
    camera: Camera,
    origin: CameraOrigin,
}

/// The park as it was found at the start.
pub(crate) struct Loaded {
    known: Known,
    cameras: Cameras,
}

/// Who changes the park.
pub(crate) struct Editor {
    /// His identity, for the audit trail.
    pub(crate) name: String,
    /// Whether he may change a source's cameras.
    pub(crate) may_change: Box<dyn Fn(&SourceId) -> bool + Send + Sync>,
}

/// A change that was kept.
struct Done<T> {
    answer: T,
    /// What the application has to do.
    change: CameraChange,
    /// What the audit trail is told.
    rows: Vec<audit::Row>,
}

/// How a list of cameras is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListFormat {
    /// A JSON list.
    Json,
    /// A table (RFC 4180).
    Csv,
}

/// What an import does with a camera that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is a problem.
    Refuse,
    /// It becomes what the row says.
    Change,
}

/// What an import has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Imported {
    pub(crate) added: usize,
    pub(crate) changed: usize,
}

/// Why the park stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParkError {
    #[error("there is no camera {0}")]
    Unknown(String),
    #[error("there is a camera {0} already; change it with PUT, or choose another id")]
    Exists(CameraId),
    #[error("cameras of this source may not be changed with this token")]
    Forbidden,
    #[error("{}", told(.problems))]
    Invalid {
        problems: Problems,
        /// Among all, `problems` may leave some out.
        count: usize,
    },
    #[error("the park is full: it holds {MAX_CAMERAS} cameras at most")]
    Full,
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the camera's address cannot be kept: {0}")]
    Vault(#[from] VaultError),
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl ParkError {
    fn invalid(mut problems: Problems) -> Self {
        let count = problems.len();
        problems.truncate(PROBLEMS_TOLD);
        Self::Invalid { problems, count }
    }
}

/// Each by its setting, for one camera.
fn told(problems: &[Problem]) -> String {
    let told = problems.iter().map(|problem| match problem.key.as_str() {
        "" => problem.sentence.clone(),
        key => format!("{key}: {}", problem.sentence),
    });
    told.collect::<Vec<_>>().join("; ")
}

impl Loaded {
    /// Reads what was kept and lays it over the settings file.
    pub(crate) fn read(config: &Config, database: &Database) -> Result<Self, DatabaseError> {
        let vault = Vault::new(database.place().clone());
        let node = config.cluster.as_ref().map(config::Cluster::node).unwrap_or_default();
        let keeper = Keeper::new(database.clone(), vault, node);
        let file: BTreeMap<CameraId, Camera> =
            config.cameras.iter().map(|camera| (camera.id.clone(), camera.clone())).collect();
        let known =
            Known { keeper, file, sources: config.sources.clone(), reach: config.park.reach };
        let records = known.keeper.read()?;
        let cameras = known.lay_over(records);
        Ok(Self { known, cameras })
    }

    /// The cameras to start with.
    pub(crate) fn cameras(&self) -> Vec<CameraConfig> {
        self.cameras.values().map(|entry| entry.application(self.known.reach)).collect()
    }
}

impl Known {
    fn lay_over(&self, records: HashMap<CameraId, Record>) -> Cameras {
        let of_file = |(id, camera): (&CameraId, &Camera)| (id.clone(), Entry::of_file(camera));
        let mut cameras: Cameras = self.file.iter().map(of_file).collect();
        // In an order that is the same at each start, for the case that there are too many.
        let records: BTreeMap<CameraId, Record> = records.into_iter().collect();
        for (id, record) in records {
            match self.standing(&id, record) {
                None => drop(cameras.remove(&id)),
                Some(entry) => drop(put_if_room(&mut cameras, id, entry)),
            }
        }
        cameras
    }

    /// What holds, of a record and the settings file.
    fn standing(&self, id: &CameraId, record: Record) -> Option<Entry> {
        if let Some(file) = self.file.get(id)
            && !self.keeper.covers(&record, file)
        {
            tracing::info!(
                camera_id = %id,
                "the settings file holds: what it says of the camera is not what the API had changed"
            );
            return Some(Entry::of_file(file));
        }
        let camera = record.camera?;
        if self.sources.iter().all(|source| source.id != camera.source) {
            let source = &camera.source;
            tracing::error!(camera_id = %id, %source, "a camera is left out: its source is not in the settings");
            return self.file.get(id).map(Entry::of_file);
        }
        Some(Entry { camera, origin: CameraOrigin::Stored })
    }

    /// What an editor may know of the sources: those of others are as if they were not there.
    fn sources_of(&self, editor: &Editor) -> Vec<Source> {
        self.sources.iter().filter(|source| (editor.may_change)(&source.id)).cloned().collect()
    }

    /// The camera of a row, if it may be so: it is of one of these `sources`, and was.
    fn read_row(
        &self,
        row: Row,
        before: Option<&Entry>,
        sources: &[Source],
    ) -> Result<Camera, Problems> {
        let before = before.map(|entry| &entry.camera);
        let is_his = |camera: &Camera| sources.iter().any(|source| source.id == camera.source);
        if before.is_some_and(|before| !is_his(before)) {
            let sentence = ParkError::Forbidden.to_string();
            return Err(vec![Row::problem(row.number(), "source", sentence)]);
        }
        row.read(sources, before, self.reach)
    }

    /// Keeps cameras, all or none, and says what is different from here on.
    fn keep(
        &self,
        cameras: &mut Cameras,
        put: Vec<Camera>,
        editor: &Editor,
    ) -> Result<Done<()>, ParkError> {
        self.keeper.keep(&put, &self.file)?;
        let mut done = Done { answer: (), change: CameraChange::default(), rows: Vec::new() };
        for camera in put {
            let before = cameras.get(&camera.id).map(|entry| &entry.camera);
            done.rows.push(changes::put(&editor.name, before, &camera));
            let entry = Entry { camera, origin: CameraOrigin::Stored };
            done.change.put.push(entry.application(self.reach));
            cameras.insert(entry.camera.id.clone(), entry);
        }
        Ok(done)
    }
}

impl Entry {
    fn of_file(camera: &Camera) -> Self {
        Self { camera: camera.clone(), origin: CameraOrigin::Config }
    }

    /// Who writes the settings file may let a camera be anywhere.
    fn application(&self, reach: Reach) -> CameraConfig {
        let reach = match self.origin {
            CameraOrigin::Config => Reach::Anywhere,
            CameraOrigin::Stored => reach,
        };
        CameraConfig { origin: self.origin, reach, ..self.camera.application() }
    }
}

impl Park {
    /// The park of a running application, which has `loaded.cameras()`.
    pub(crate) fn new(loaded: Loaded, app: App) -> Self {
        let Loaded { known, cameras } = loaded;
        let cameras = Arc::new(tokio::sync::Mutex::new(cameras));
        Self(Arc::new(Inner { app, known, cameras }))
    }

    /// Adds the camera of a JSON document.
    pub(crate) async fn add(&self, text: String, editor: Editor) -> Result<CameraId, ParkError> {
        let add = move |known: &Known, cameras: &mut Cameras| {
            let row = Row::of_json(&text).map_err(ParkError::invalid)?;
            let id = row.id();
            if let Some(id) = id.filter(|id| cameras.contains_key(id)) {
                return Err(ParkError::Exists(id));
            }
            let sources = known.sources_of(&editor);
            let camera = known.read_row(row, None, &sources).map_err(ParkError::invalid)?;
            if cameras.len() >= MAX_CAMERAS {
                return Err(ParkError::Full);
            }
            let id = camera.id.clone();
            check_keys(cameras, &[(1, &camera)]).map_err(ParkError::invalid)?;
            tracing::info!(camera_id = %id, url = camera.url.display(), "a camera is added over the API");
            Ok(known.keep(cameras, vec![camera], &editor)?.with(id))
        };
        self.act(add).await
    }

    /// Changes a camera to what a JSON document says; what that leaves out stays.
    pub(crate) async fn change(
        &self,
        id: CameraId,
        text: String,
        editor: Editor,
    ) -> Result<(), ParkError> {
        let change = move |known: &Known, cameras: &mut Cameras| {
            let before = cameras.get(&id).ok_or_else(|| ParkError::Unknown(id.to_string()))?;
            forbid_unless(&editor, &before.camera.source)?;
            let row = Row::of_json(&text).map_err(ParkError::invalid)?;
            let camera = known.read_row(row, Some(before), &known.sources_of(&editor));
            let camera = camera.map_err(ParkError::invalid)?;
            if camera.id != id {
                let sentence =
                    format!("the id of {id} cannot be changed; add a camera, and delete this one");
                return Err(ParkError::invalid(vec![Row::problem(1, "id", sentence)]));
            }
            check_keys(cameras, &[(1, &camera)]).map_err(ParkError::invalid)?;
            tracing::info!(camera_id = %id, url = camera.url.display(), "a camera is changed over the API");
            known.keep(cameras, vec![camera], &editor)
        };
        self.act(change).await
    }

    /// Removes a camera.
    pub(crate) async fn remove(&self, id: CameraId, editor: Editor) -> Result<(), ParkError> {
        let remove = move |known: &Known, cameras: &mut Cameras| {
            let before = cameras.get(&id).ok_or_else(|| ParkError::Unknown(id.to_string()))?;
            forbid_unless(&editor, &before.camera.source)?;
            let rows = vec![changes::gone(&editor.name, &before.camera)];
            known.keeper.forget(&id, known.file.get(&id))?;
            cameras.remove(&id);
            tracing::info!(camera_id = %id, "a camera is deleted over the API");
            let change = CameraChange { put: Vec::new(), gone: vec![id] };
            Ok(Done { answer: (), change, rows })
        };
        self.act(remove).await
    }

    /// Adds the cameras of a list, all or none.
    pub(crate) async fn import(
        &self,
        text: String,
        format: ListFormat,
        existing: Existing,
        editor: Editor,
    ) -> Result<Imported, ParkError> {
        let import = move |known: &Known, cameras: &mut Cameras| {
            let rows = match format {
                ListFormat::Json => config::rows_of_json(&text),
                ListFormat::Csv => config::rows_of_csv(&text),
            };
            let rows = rows.map_err(ParkError::invalid)?;
            let put = read_rows(known, cameras, rows, existing, &known.sources_of(&editor));
            let put = put.map_err(ParkError::invalid)?;
            let changed = put.iter().filter(|camera| cameras.contains_key(&camera.id)).count();
            let added = put.len() - changed;
            if cameras.len() + added > MAX_CAMERAS {
                return Err(ParkError::Full);
            }
            tracing::info!(added, changed, "cameras are imported over the API");
            Ok(known.keep(cameras, put, &editor)?.with(Imported { added, changed }))
        };
        self.act(import).await
    }

    /// Makes a camera a new stream key. Of a camera that is kept in the database it is kept as well.
    pub(crate) async fn new_stream_key(
        &self,
        id: CameraId,
    ) -> Result<Result<SecretString, KeyRefusal>, ParkError> {
        let key = match self.0.app.new_stream_key(id.clone()).await {
            Ok(key) => key,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let keep = move |known: &Known, cameras: &mut Cameras| {
            let entry = cameras.get(&id).filter(|entry| entry.origin == CameraOrigin::Stored);
            // The camera's place is shared with the application: it has the new key already.
            if let Some(entry) = entry {
                known.keeper.keep(std::slice::from_ref(&entry.camera), &known.file)?;
            }
            Ok(Done { answer: (), change: CameraChange::default(), rows: Vec::new() })
        };
        self.act(keep).await.map(|()| Ok(key))
    }

    /// One change at a time, away from the runtime's threads: it reads, seals and writes to the disk. It is
    /// done to its end even if who asked hangs up.
    async fn act<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Known, &mut Cameras) -> Result<Done<T>, ParkError> + Send + 'static,
    ) -> Result<T, ParkError> {
        let park = self.clone();
        let task = tokio::spawn(async move {
            let cameras = Arc::clone(&park.0.cameras).lock_owned().await;
            let inner = Arc::clone(&park.0);
            let working = tokio::task::spawn_blocking(move || {
                let mut cameras: OwnedMutexGuard<Cameras> = cameras;
                let done = work(&inner.known, &mut cameras);
                (cameras, done)
            });
            let (cameras, done) = working.await.map_err(|_| ParkError::ShuttingDown)?;
            let Done { answer, change, rows } = done?;
            park.0.app.audit().add_all(rows);
            let is_empty = change.put.is_empty() && change.gone.is_empty();
            let is_applied = is_empty || park.0.app.change_cameras(change).await;
            drop(cameras);
            if is_applied { Ok(answer) } else { Err(ParkError::ShuttingDown) }
        });
        task.await.unwrap_or(Err(ParkError::ShuttingDown))
    }
}

impl Done<()> {
    fn with<T>(self, answer: T) -> Done<T> {
        Done { answer, change: self.change, rows: self.rows }
    }
}

/// Whether there was room: two halves of a cluster may have filled the park while they did not see each other.
fn put_if_room(cameras: &mut Cameras, id: CameraId, entry: Entry) -> bool {
    if cameras.len() >= MAX_CAMERAS && !cameras.contains_key(&id) {
        tracing::warn!(camera_id = %id, "a camera is left out: the park holds {MAX_CAMERAS} cameras at most");
        return false;
    }
    cameras.insert(id, entry);
    true
}

fn forbid_unless(editor: &Editor, source: &SourceId) -> Result<(), ParkError> {
    if (editor.may_change)(source) { Ok(()) } else { Err(ParkError::Forbidden) }
}

fn read_rows(
    known: &Known,
    cameras: &Cameras,
    rows: Vec<Row>,
    existing: Existing,
    sources: &[Source],
) -> Result<Vec<Camera>, Problems> {
    if rows.len() > MAX_CAMERAS {
        let sentence =
            format!("there are {} cameras in it; a park holds {MAX_CAMERAS}", rows.len());
        return Err(vec![Row::problem(MAX_CAMERAS + 1, "", sentence)]);
    }
    let mut problems = Vec::new();
    let mut read: Vec<(usize, Camera)> = Vec::new();
    let mut seen: HashMap<CameraId, usize> = HashMap::new();
    for row in rows {
        let number = row.number();
        let id = row.id();
        if let Some(first) = id.as_ref().and_then(|id| seen.insert(id.clone(), number)) {
            let sentence = format!("row {first} has the same id");
            problems.push(Row::problem(number, "id", sentence));
        }
        let before = id.as_ref().and_then(|id| cameras.get(id));
        if let (Some(before), Existing::Refuse) = (before, existing) {
            let sentence = format!(
                "there is a camera {} already; import with ?existing=change to change it",
                before.camera.id
            );
            problems.push(Row::problem(number, "id", sentence));
        }
        match known.read_row(row, before, sources) {
            Ok(camera) => read.push((number, camera)),
            Err(more) => problems.extend(more),
        }
    }
    let numbered: Vec<(usize, &Camera)> = read.iter().map(|(n, camera)| (*n, camera)).collect();
    problems.extend(check_keys(cameras, &numbered).err().into_iter().flatten());
    problems.sort_by_key(Problem::row);
    if problems.is_empty() {
        Ok(read.into_iter().map(|(_, camera)| camera).collect())
    } else {
        Err(problems)
    }
}

/// No stream key opens two places.
fn check_keys(cameras: &Cameras, new: &[(usize, &Camera)]) -> Result<(), Problems> {
    let replaced: HashSet<&CameraId> = new.iter().map(|(_, camera)| &camera.id).collect();
    let others = cameras.values().filter(|entry| !replaced.contains(&entry.camera.id));
    let mut taken: HashSet<[u8; 32]> = others.flat_map(|entry| keys_of(&entry.camera)).collect();
    let mut problems = Vec::new();
    for (number, camera) in new {
        if !keys_of(camera).all(|key| taken.insert(key)) {
            problems.push(Row::problem(*number, "url", SHARED_KEY.to_owned()));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn keys_of(camera: &Camera) -> impl Iterator<Item = [u8; 32]> {
    [Some(&camera.url), camera.sub_url.as_ref()].into_iter().flatten().filter_map(|url| match url {
        SourceUrl::Whip(point) => point.digest(),
        SourceUrl::Rtsp { .. }
        | SourceUrl::Whep { .. }
        | SourceUrl::Test { .. }
        | SourceUrl::Sealed { .. } => None,
    })
}
