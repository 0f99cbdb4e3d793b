//! A PostgreSQL server of our own, in a folder that goes with it.

use std::{
    net::TcpListener,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Set to 1: a machine without PostgreSQL fails the tests that need one.
const REQUIRED: &str = "GANTRY_REQUIRE_POSTGRES";

/// A running server; killed when dropped.
pub struct Server {
    process: Child,
    folder: tempfile::TempDir,
    bin: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    /// Of a database of its own.
    pub url: String,
}

/// Where the server's programs are.
fn programs() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    // Debian keeps them out of the path.
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<_> = versions.flatten().map(|v| v.path().join("bin")).collect();
        versions.sort();
        places.extend(versions.into_iter().rev());
    }
    // Links to some of them may stand elsewhere: all are beside the one that is linked to.
    let real = |p: PathBuf| Some(p.join("initdb").canonicalize().ok()?.parent()?.to_owned());
    let all = ["initdb", "postgres", "createdb"];
    let mut found = places.into_iter().filter_map(real);
    found.find(|p| all.iter().all(|program| p.join(program).exists()))
}

/// PostgreSQL does not run as root: the user that it is run as there, and the user's group.
fn other_user() -> Option<(u32, u32)> {
    let me = std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m));
    if me.unwrap() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let line = users.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
        Some((ids.next()?, ids.next()?))
    };
    Some(
        of("postgres")
            .or_else(|| of("nobody"))
            .unwrap_or((65534, 65534)),
    )
}

impl Server {
    /// Starts one, or says that there is none on this machine.
    pub fn start() -> Option<Self> {
        let Some(bin) = programs() else {
            let required = std::env::var(REQUIRED).is_ok_and(|v| v == "1");
            assert!(
                !required,
                "{REQUIRED}=1, and there is no initdb and postgres here: install postgresql"
            );
            eprintln!(
                "SKIPPED: no PostgreSQL on this machine (initdb, postgres); {REQUIRED}=1 makes that a failure"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let user = other_user();
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = folder.path().join("data");
        let mut initdb = as_user(user, &bin.join("initdb"), folder.path());
        let made = initdb
            .args([
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "--auth=trust",
                "--username=gantry",
                "-D",
            ])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = run(&bin, user, folder.path(), port);
        let mut server = Self {
            process,
            folder,
            bin,
            user,
            port,
            url: String::new(),
        };
        server.url = server.database("records");
        Some(server)
    }

    /// Makes a database; its URL.
    pub fn database(&self, name: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        let socket = self.folder.path().display();
        loop {
            let mut createdb = as_user(self.user, &self.bin.join("createdb"), self.folder.path());
            let made = createdb
                .args([
                    "-h",
                    &socket.to_string(),
                    "-p",
                    &self.port.to_string(),
                    "-U",
                    "gantry",
                    name,
                ])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            if made.status.success() || said.contains("already exists") {
                return format!("postgres://gantry:unused@127.0.0.1:{}/{name}", self.port);
            }
            // It is starting.
            assert!(Instant::now() < deadline, "{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        // Its children end by themselves when they see that it is gone; the next start waits for them.
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, on the same data and port.
    pub fn start_again(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            self.process = run(&self.bin, self.user, self.folder.path(), self.port);
            let probe = || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            while self.process.try_wait().unwrap().is_none() {
                if probe() {
                    return;
                }
                assert!(Instant::now() < deadline, "it does not come up again");
                std::thread::sleep(Duration::from_millis(50));
            }
            // Children of the one before still hold the shared memory.
            assert!(Instant::now() < deadline, "it does not start again");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fast shutdown: its children go with it, and the folder can be removed.
        let id = self.process.id().to_string();
        let _ = Command::new("kill").args(["-INT", &id]).status();
        let _ = self.process.wait();
    }
}

fn run(bin: &Path, user: Option<(u32, u32)>, folder: &Path, port: u16) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    as_user(user, &bin.join("postgres"), folder)
        .arg("-D")
        .arg(folder.join("data"))
        .args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-k",
        ])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn as_user(user: Option<(u32, u32)>, program: &Path, folder: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}
