//! Isolated Nix stores, filled by real Nix, and the machine's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::{finish, folder};

/// A store with its own database. It lies at a path of its own and is never moved.
pub(crate) struct Store {
    /// `…/nix/store`
    pub(crate) directory: PathBuf,
    /// Holds the database and the home directory; `None` for the machine's own store.
    own: Option<TempDir>,
    /// Holds the store, unless a file system under test does.
    _place: Option<TempDir>,
}

impl Store {
    /// An empty store on the file system of temporary files.
    pub(crate) fn new() -> Self {
        let place = folder();
        let store = Self::at(place.path());
        Self { _place: Some(place), ..store }
    }

    /// An empty store below `prefix`; its database lies elsewhere.
    pub(crate) fn at(prefix: &Path) -> Self {
        let directory = prefix.join("nix/store");
        fs_err::create_dir_all(&directory).unwrap();
        let own = folder();
        fs_err::create_dir(own.path().join("home")).unwrap();
        Self { directory, own: Some(own), _place: None }
    }

    /// A store with one of the fixtures, and its store path.
    pub(crate) fn with(attribute: &str) -> (Self, PathBuf) {
        let store = Self::new();
        let path = store.build(attribute);
        (store, path)
    }

    /// A store that holds the whole fixture, for tests that change nothing in it.
    pub(crate) fn shared() -> &'static (Self, PathBuf) {
        static SHARED: OnceLock<(Store, PathBuf)> = OnceLock::new();
        SHARED.get_or_init(|| {
            let (store, path) = Self::with("everything");
            store.optimise();
            (store, path)
        })
    }

    /// The machine's own store, `/nix/store`.
    pub(crate) fn of_the_machine() -> Self {
        Self { directory: "/nix/store".into(), own: None, _place: None }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.own.as_ref().map_or_else(|| super::scratch().to_owned(), |own| own.path().join("home"))
    }

    /// Where the database of an isolated store lies.
    pub(crate) fn state(&self) -> PathBuf {
        self.own.as_ref().unwrap().path().join("var")
    }

    /// The variables by which every program of Nix finds the store, and nothing of the user's own set-up.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs");
        let mut variables = vec![
            ("PATH", std::env::var_os("PATH").unwrap_or_default().into()),
            ("HOME", self.home()),
            ("LC_ALL", "C".into()),
            ("TMPDIR", super::scratch().to_owned()),
            ("NIX_CONF_DIR", settings),
            ("NIX_USER_CONF_FILES", "/dev/null".into()),
            ("NIX_REMOTE", "local".into()),
        ];
        if self.own.is_some() {
            variables.extend([
                ("NIX_STORE_DIR", self.directory.clone()),
                ("NIX_STATE_DIR", self.state()),
                ("NIX_LOCALSTATE_DIR", self.state()),
                ("NIX_LOG_DIR", self.state().join("log")),
            ]);
        }
        variables
    }

    /// A program that works on this store.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(super::scratch());
        command
    }

    pub(crate) fn nix_store(&self) -> Command {
        self.command("nix-store")
    }

    /// Builds an attribute of `tests/fixtures/closure.nix`.
    pub(crate) fn build(&self, attribute: &str) -> PathBuf {
        self.build_of(&fixture(), attribute)
    }

    /// Builds an attribute of a Nix file.
    pub(crate) fn build_of(&self, file: &Path, attribute: &str) -> PathBuf {
        finish(self.command("nix-build").arg(file).args(["--no-out-link", "-A", attribute])).into()
    }

    /// Makes equal files, and equal symlinks, names of one inode, across store paths too.
    pub(crate) fn optimise(&self) {
        finish(self.nix_store().arg("--optimise"));
    }

    pub(crate) fn closure(&self, path: &Path) -> Vec<PathBuf> {
        let paths = finish(self.nix_store().args(["--query", "--requisites"]).arg(path));
        paths.lines().map(PathBuf::from).collect()
    }

    /// What Nix has registered about the closure of `path`.
    pub(crate) fn registration(&self, path: &Path) -> String {
        finish(self.nix_store().arg("--dump-db").args(self.closure(path))) + "\n"
    }

    /// Sums the NAR sizes of the closure of `path`.
    pub(crate) fn nar_size(&self, path: &Path) -> u64 {
        let sizes = finish(self.nix_store().args(["--query", "--size"]).args(self.closure(path)));
        sizes.lines().map(|size| size.parse::<u64>().unwrap()).sum()
    }
}

pub(crate) fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/closure.nix")
}
