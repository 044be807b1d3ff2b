//! The directory of what must outlive the process: the local certificate authority, the database, the
//! key that seals passwords in it.
//!
//! It is made when something is first kept in it, and nobody but the server's own user may look into it.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the server of a whole machine keeps its own (FHS 3.0 §5.8).
const OF_THE_MACHINE: &str = "/var/lib/manifold";

/// Largest file that is read back. A key and a certificate have 2 KiB.
const LENGTH_MAX: u64 = 64 * 1024;

/// Read and written by the owner alone.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;
const OF_OTHERS: u32 = 0o077;

/// The directory; that it is there, or can be made, is found out when it is used.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

/// What cannot be kept, or found again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// A file that is there cannot be read.
    #[error("cannot read {}: {source}; the directory is `store.data_dir` of the settings", path.display())]
    Unreadable {
        /// The whole path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file or the directory cannot be written.
    #[error(
        "cannot write {}: {source}; set `store.data_dir` to a directory that the server may write to",
        path.display()
    )]
    Unwritable {
        /// The whole path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    Root,
    Other,
}

impl DataDir {
    /// `store.data_dir` where it is set; else what systemd says (`StateDirectory=`); else
    /// `/var/lib/manifold` for root, and for everybody else `manifold` where the user's programs keep
    /// their state (XDG Base Directory 0.8).
    pub(crate) fn of_process(configured: Option<&Path>) -> Self {
        let uid = std::fs::metadata("/proc/self").map(|process| process.uid());
        let user = if uid.is_ok_and(|uid| uid == 0) { User::Root } else { User::Other };
        Self::locate(configured, |name| std::env::var_os(name), user)
    }

    fn locate(
        configured: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
        user: User,
    ) -> Self {
        if let Some(path) = configured {
            return Self(path.to_owned());
        }
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        // Several directories come with colons between; the first is as good as any.
        let of_service = variable("STATE_DIRECTORY")
            .and_then(|all| std::env::split_paths(&all).find(|path| path.is_absolute()));
        if let Some(path) = of_service {
            return Self(path);
        }
        let of_user = || {
            let state = absolute("XDG_STATE_HOME");
            state.or_else(|| Some(absolute("HOME")?.join(".local/state")))
        };
        match user {
            User::Root => Self(OF_THE_MACHINE.into()),
            User::Other => Self(
                of_user().map_or_else(|| OF_THE_MACHINE.into(), |state| state.join("manifold")),
            ),
        }
    }

    /// Where `name` is kept.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is kept under `name`, at most 64 KiB; `None` where there is nothing. A file that others may
    /// read is taken from them.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, DataError> {
        let path = self.path(name);
        match read_private(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DataError::Unreadable { path, source }),
        }
    }

    /// Keeps `text` under `name`, for the server's own user alone: the new file is there whole, or the
    /// old one stays.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), DataError> {
        let path = self.path(name);
        self.replace(name, text).map_err(|source| DataError::Unwritable { path, source })
    }

    /// The path of a file for the server's own user alone, for who keeps more in it than a text. It is made,
    /// empty, where it is not there; one that others may read is taken from them.
    pub(crate) fn private_file(&self, name: &str) -> Result<PathBuf, DataError> {
        let path = self.path(name);
        match self.open_private(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(DataError::Unwritable { path, source }),
        }
    }

    fn open_private(&self, path: &Path) -> io::Result<()> {
        self.make()?;
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(PRIVATE_FILE).open(path)?;
        if file.metadata()?.permissions().mode() & OF_OTHERS != 0 {
            file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
        }
        File::open(&self.0)?.sync_all()
    }

    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(&self.0)
    }

    fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        self.make()?;
        let beside = self.path(&format!(".{name}.{}", uuid::Uuid::new_v4()));
        let written = write_private(&beside, text)
            .and_then(|()| std::fs::rename(&beside, self.path(name)))
            .and_then(|()| File::open(&self.0)?.sync_all());
        if written.is_err() {
            // It may not even be there; the reason of the failure is told in any case.
            let _ = std::fs::remove_file(&beside);
        }
        written
    }
}

fn read_private(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if about.len() > LENGTH_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is larger than 64 KiB"));
    }
    if about.permissions().mode() & OF_OTHERS != 0 {
        file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
    }
    let mut text = String::new();
    file.take(LENGTH_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory of a test, gone with it.
    pub(crate) struct Temporary(pub(crate) DataDir);

    impl Temporary {
        pub(crate) fn new() -> Self {
            let name = format!("manifold-data-{}", uuid::Uuid::new_v4());
            Self(DataDir(std::env::temp_dir().join(name)))
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_kept_is_found_again_and_is_nobody_elses() {
        let Temporary(data) = &Temporary::new();
        assert_eq!(data.read("a.pem").unwrap(), None, "reading makes nothing");
        assert!(!data.0.exists());

        data.write("a.pem", "first").unwrap();
        data.write("a.pem", "second").unwrap();

        assert_eq!(data.read("a.pem").unwrap().as_deref(), Some("second"));
        assert_eq!((mode(&data.0), mode(&data.path("a.pem"))), (0o700, 0o600));
        let files = std::fs::read_dir(&data.0).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_others_may_read_is_taken_from_them() {
        let Temporary(data) = &Temporary::new();
        data.write("a.pem", "key").unwrap();
        std::fs::set_permissions(data.path("a.pem"), Permissions::from_mode(0o644)).unwrap();

        assert_eq!(data.read("a.pem").unwrap().as_deref(), Some("key"));

        assert_eq!(mode(&data.path("a.pem")), 0o600);
    }

    #[test]
    fn a_place_that_is_no_directory_is_told_with_the_setting() {
        let Temporary(data) = &Temporary::new();
        data.write("file", "").unwrap();
        let below = DataDir(data.path("file"));

        let sentence = below.write("a.pem", "key").unwrap_err().to_string();

        let path = below.path("a.pem");
        assert!(sentence.starts_with(&format!("cannot write {}: ", path.display())), "{sentence}");
        assert!(sentence.contains("`store.data_dir`"), "{sentence}");
    }

    #[test]
    fn the_first_place_that_somebody_names_is_taken() {
        let place = |configured: Option<&str>, variables: &[(&str, &str)], user| {
            let value = |name: &str| {
                let found = variables.iter().find(|(of, _)| *of == name);
                found.map(|(_, value)| OsString::from(value))
            };
            DataDir::locate(configured.map(Path::new), value, user).0.display().to_string()
        };
        let home = [("HOME", "/home/a")];
        let service = [("HOME", "/root"), ("STATE_DIRECTORY", "/var/lib/m:/var/lib/n")];
        assert_eq!(place(Some("./data"), &service, User::Root), "./data");
        assert_eq!(place(None, &service, User::Other), "/var/lib/m");
        assert_eq!(place(None, &home, User::Root), "/var/lib/manifold");
        assert_eq!(place(None, &home, User::Other), "/home/a/.local/state/manifold");
        let state = [("HOME", "/home/a"), ("XDG_STATE_HOME", "/state")];
        assert_eq!(place(None, &state, User::Other), "/state/manifold");
        let relative = [("HOME", "/home/a"), ("XDG_STATE_HOME", "state")];
        assert_eq!(place(None, &relative, User::Other), "/home/a/.local/state/manifold");
        assert_eq!(place(None, &[], User::Other), "/var/lib/manifold");
    }
}
