//! The binary under test: a running fleet in a folder of its own, and commands against it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take before the test fails. Generous: CI has two slow cores.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// The binary, away from the configuration of whoever runs the tests.
pub fn gantry() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    for variable in [
        "KUBECONFIG",
        "GANTRY_KUBECONFIG",
        "GANTRY_DATA_DIR",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// A fleet that commands are run against: embedded, or the cluster of a kubeconfig.
pub trait Fleet: Sized {
    /// Its current context is the hub.
    fn kubeconfig(&self) -> &Path;

    /// The kubeconfig's contexts of the members, each with what it is called in the hub.
    fn members(&self) -> Vec<String>;

    /// The processes end without any warning, as at a power cut, and others take their place.
    fn crash(self) -> Self;

    /// A command against this fleet.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = gantry();
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(args);
        command
    }

    /// Runs a command; what it printed.
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "gantry {args:?}: {output:#?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

/// A process of the binary that says when it is ready; killed when dropped.
pub struct Process(Child);

impl Process {
    /// Starts it and waits until it prints a line that begins so.
    pub fn start(mut command: Command, ready: &str) -> Process {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (tell, told) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Nobody listens any more once it is ready; its output is drained all the same.
                let _ = tell.send(line);
            }
        });
        let process = Process(child);
        let deadline = Instant::now() + DEADLINE;
        let mut seen = vec![];
        loop {
            match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with(ready) => return process,
                Ok(line) => seen.push(line),
                Err(e) => panic!(
                    "{command:?} did not come up ({e}); it said:\n{}",
                    seen.join("\n")
                ),
            }
        }
    }

    /// Ends it as Ctrl-C does; its exit code.
    pub fn interrupt(mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        wait("the process to stop", || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `gantry up`.
pub struct Up {
    process: Process,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Up {
    /// Starts a fleet on a folder and waits until it says that it is ready.
    pub fn start(folder: &Path, args: &[&str]) -> Up {
        let mut command = gantry();
        command.args(["up", "--data-dir"]).arg(folder).args(args);
        Up {
            process: Process::start(command, "Ready"),
            folder: folder.to_owned(),
            kubeconfig: folder.join("kubeconfig"),
        }
    }

    /// Ends it as Ctrl-C does; its exit code.
    pub fn interrupt(self) -> Option<i32> {
        self.process.interrupt()
    }
}

impl Fleet for Up {
    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn members(&self) -> Vec<String> {
        ["sh", "bj"].map(str::to_owned).into()
    }

    fn crash(self) -> Up {
        drop(self.process);
        Up::start(&self.folder, &[])
    }
}

/// Asks again and again until there is an answer, or fails.
pub fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
