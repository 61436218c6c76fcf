//! PostgreSQL clusters that live as long as a test: Debian's programs, a data directory and a socket in a temporary folder, no port
//! unless encryption is what is tested.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::authority::Identity;

/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// Debian's, which its packages make. The server refuses to run as root.
const ACCOUNT: &str = "postgres";
/// PostgreSQL's own port; without one on the network it names the socket.
const PORT: u16 = 5432;

/// A running server, ended with whatever is connected when it is dropped.
pub struct Cluster {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// A new cluster, started. It writes to disk as a real one does.
    pub fn start() -> Self {
        Self::made().started(&["listen_addresses="])
    }

    /// A new one that is asked on loopback as well: there by password, encrypted under this identity and in clear.
    pub fn start_on_loopback(identity: &Identity) -> Self {
        let mut cluster = Self::made();
        cluster.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let who = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(Path::new(&cluster.data()).join("pg_hba.conf"), who).unwrap();
        let settings = [("ssl_cert_file", &identity.certificate), ("ssl_key_file", &identity.key)].map(|(setting, from)| {
            let file = cluster.socket().join(setting);
            std::fs::copy(from, &file).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            give(&file);
            format!("{setting} = '{}'\n", file.display())
        });
        // In the file, where a test can change them; what the command line says stays.
        let file = Path::new(&cluster.data()).join("postgresql.conf");
        let settings = std::fs::read_to_string(&file).unwrap() + "\nssl = on\n" + &settings.concat();
        std::fs::write(file, settings).unwrap();
        cluster.started(&["listen_addresses=127.0.0.1"])
    }

    /// A data directory.
    fn made() -> Self {
        let cluster = Self::empty();
        let data = cluster.data();
        cluster.run("initdb", ["-D", &data, "-U", ACCOUNT, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        cluster
    }

    /// A standby of this cluster, started, that a commit here waits for once it is named in `synchronous_standby_names`.
    #[must_use]
    pub fn standby(&self, name: &str) -> Self {
        let standby = Self::empty();
        let (data, socket) = (standby.data(), self.socket().display().to_string());
        let connection = format!("host={socket} user={ACCOUNT} application_name={name}");
        standby.run("pg_basebackup", ["-D", &data, "-d", &connection, "-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        standby.started(&["listen_addresses="])
    }

    /// A folder that the server's account owns.
    fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        give(folder.path());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, port: PORT, server: None }
    }

    fn started(mut self, more: &[&str]) -> Self {
        let (socket, port) = (self.socket().display().to_string(), self.port.to_string());
        let settings: [&str; 4] =
            [&format!("unix_socket_directories={socket}"), &format!("port={port}"), "fsync=on", "max_connections=100"];
        let mut command = program("postgres");
        command.args(["-D", &self.data()]).args(settings.iter().chain(more).flat_map(|setting| ["-c", setting]));
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !program("pg_isready").args(["-q", "-h", &socket, "-p", &port]).status().unwrap().success() {
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

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The `store.url` of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ACCOUNT}@/{database}?host={}", self.socket().display())
    }

    /// What a query gives, one line per row, columns parted by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let (socket, port) = (self.socket().display().to_string(), self.port.to_string());
        let at = ["-h", &socket, "-p", &port, "-U", ACCOUNT, "-d", database, "-qAtX", "-v", "ON_ERROR_STOP=1"];
        // The system takes no longer argument.
        let file = (sql.len() > 100_000).then(|| tempfile::NamedTempFile::new_in(self.socket()).unwrap());
        let output = if let Some(file) = &file {
            std::fs::write(file.path(), sql).unwrap();
            give(file.path());
            self.run("psql", at.into_iter().chain(["-1", "-f", file.path().to_str().unwrap()]))
        } else {
            self.run("psql", at.into_iter().chain(["-c", sql]))
        };
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

/// Makes a file or folder the server's account's own.
fn give(path: &Path) {
    if is_root() {
        let id = |kind: &str| {
            let output = Command::new("id").args([kind, ACCOUNT]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.trim().parse::<u32>().unwrap_or_else(|_| panic!("there is no account {ACCOUNT}: install postgresql"))
        };
        chown(path, Some(id("-u")), Some(id("-g"))).unwrap();
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
