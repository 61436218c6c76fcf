//! PostgreSQL clusters that live as long as a test: Debian's programs, a data directory and a socket in a temporary folder, no port.

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// Debian's, which its packages make. The server refuses to run as root.
const ACCOUNT: &str = "postgres";

/// A running server, ended with whatever is connected when it is dropped.
pub struct Cluster {
    folder: TempDir,
    server: Option<Child>,
}

impl Cluster {
    /// A new cluster, started. It writes to disk as a real one does.
    pub fn start() -> Self {
        let cluster = Self::empty();
        let data = cluster.data();
        cluster.run("initdb", ["-D", &data, "-U", ACCOUNT, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        cluster.started()
    }

    /// A standby of this cluster, started, that a commit here waits for once it is named in `synchronous_standby_names`.
    #[must_use]
    pub fn standby(&self, name: &str) -> Self {
        let standby = Self::empty();
        let (data, socket) = (standby.data(), self.socket().display().to_string());
        let connection = format!("host={socket} user={ACCOUNT} application_name={name}");
        standby.run("pg_basebackup", ["-D", &data, "-d", &connection, "-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        standby.started()
    }

    /// A folder that the server's account owns.
    fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        if is_root() {
            let id = |kind: &str| {
                let output = Command::new("id").args([kind, ACCOUNT]).output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                text.trim().parse::<u32>().unwrap_or_else(|_| panic!("there is no account {ACCOUNT}: install postgresql"))
            };
            chown(folder.path(), Some(id("-u")), Some(id("-g"))).unwrap();
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, server: None }
    }

    fn started(mut self) -> Self {
        let socket = self.socket().display().to_string();
        let settings = ["listen_addresses=", &format!("unix_socket_directories={socket}"), "fsync=on", "max_connections=100"];
        let mut command = program("postgres");
        command.args(["-D", &self.data()]).args(settings.iter().flat_map(|setting| ["-c", setting]));
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !program("pg_isready").args(["-q", "-h", &socket]).status().unwrap().success() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        self.folder.path()
    }

    /// The `store.url` of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ACCOUNT}@/{database}?host={}", self.socket().display())
    }

    /// What a query gives, one line per row, columns parted by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let socket = self.socket().display().to_string();
        let output =
            self.run("psql", ["-h", &socket, "-U", ACCOUNT, "-d", database, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Makes a standby take writes, and wait for no other.
    pub fn promote(&self) {
        self.run("pg_ctl", ["promote", "-w", "-D", &self.data()]);
        self.sql(ACCOUNT, "ALTER SYSTEM RESET synchronous_standby_names");
        self.sql(ACCOUNT, "SELECT pg_reload_conf()");
    }

    /// Kills the server and all its processes, as a power cut would.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // Immediate shutdown: the processes quit where they stand, and write nothing more.
        let _gone = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
        server.wait().unwrap();
    }

    fn run<'a>(&self, name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        let output = program(name).args(arguments).current_dir(self.socket()).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A program of the newest PostgreSQL that is installed, run as an account that it accepts, and ended with the thread that runs it.
fn program(name: &str) -> Command {
    let program = newest().join(name);
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--clear-groups"]);
    }
    command.arg("--").arg(program).env_remove("PGHOST").env_remove("PGUSER").env_remove("PGDATABASE").env("LC_ALL", "C");
    command
}

fn newest() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").map(|entries| entries.map(|entry| entry.unwrap().path()));
    let newest = versions.ok().and_then(|versions| {
        versions.max_by_key(|path| path.file_name().and_then(OsStr::to_str).and_then(|version| version.parse::<u32>().ok()))
    });
    newest.expect("PostgreSQL is missing: install Debian's package postgresql").join("bin")
}
