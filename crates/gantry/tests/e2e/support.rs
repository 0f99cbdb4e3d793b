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

/// A running `gantry up`; killed when dropped.
pub struct Up {
    child: Child,
    kubeconfig: PathBuf,
}

impl Up {
    /// Starts a fleet on a folder and waits until it says that it is ready.
    pub fn start(folder: &Path, args: &[&str]) -> Up {
        let mut child = gantry()
            .args(["up", "--data-dir"])
            .arg(folder)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (tell, told) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Nobody listens any more once the fleet is ready; its output is drained all the same.
                let _ = tell.send(line);
            }
        });
        let deadline = Instant::now() + DEADLINE;
        let mut seen = vec![];
        loop {
            match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with("Ready") => break,
                Ok(line) => seen.push(line),
                Err(e) => {
                    let _ = child.kill();
                    panic!(
                        "the fleet did not come up ({e}); it said:\n{}",
                        seen.join("\n")
                    );
                }
            }
        }
        Up {
            child,
            kubeconfig: folder.join("kubeconfig"),
        }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A command against this fleet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = gantry();
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        command
    }

    /// Runs a command; what it printed.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "gantry {args:?}: {output:#?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Ends the process without any warning, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as Ctrl-C does; its exit code.
    pub fn interrupt(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        wait("the fleet to stop", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
