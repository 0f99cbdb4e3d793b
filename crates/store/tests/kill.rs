//! An acknowledged write survives `kill -9`: a process writes under load and tells what was
//! acknowledged, is killed at a random moment, and what it left is compared with what it told.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod workload;

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry_store::{OpenError, Options, Store};
use rand::{Rng, SeedableRng};
use workload::Writer;

const WRITERS: usize = 12;
const FOLDER: &str = "GANTRY_STORE_KILL_TEST";

fn options() -> Options {
    // A short history and a short journal, so that it is folded and records are removed all the
    // time too.
    Options {
        history_events: 50,
        journal_bytes: 256 << 10,
        ..Options::default()
    }
}

/// Ends the child if the test fails before it does.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_being_killed() {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let dir = tempfile::tempdir().unwrap();
    let mut steps = vec![0; WRITERS];
    for round in 0..8 {
        let wanted = random.random_range(1..400);
        let moment = Duration::from_micros(random.random_range(0..5000));
        let mut acknowledged = steps.clone();
        run_and_kill(dir.path(), wanted, moment, &mut acknowledged);
        let told: u64 = acknowledged
            .iter()
            .zip(&steps)
            .map(|(now, before)| now - before)
            .sum();
        assert!(told >= wanted, "round {round}");
        let store = Store::open(dir.path(), options()).unwrap();
        steps = workload::check(&store, &acknowledged);
        store.close().await;
    }
}

/// Runs the writers until so many steps were acknowledged, and a moment more.
fn run_and_kill(dir: &Path, wanted: u64, moment: Duration, acknowledged: &mut [u64]) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "write_until_killed", "--ignored", "--nocapture"])
        .env(FOLDER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Ended(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap());
    let (mut line, mut told, mut killed) = (String::new(), 0, false);
    // Also after the kill: what is still in the pipe was acknowledged.
    while lines.read_line(&mut line).unwrap() > 0 {
        let mut words = line.strip_suffix('\n').unwrap_or_default().split(' ');
        if let (Some("acknowledged"), Some(writer), Some(step), Some("end")) =
            (words.next(), words.next(), words.next(), words.next())
        {
            acknowledged[writer.parse::<usize>().unwrap()] = step.parse().unwrap();
            told += 1;
        }
        line.clear();
        if told >= wanted && !killed {
            std::thread::sleep(moment);
            // Another process cannot open it meanwhile.
            let second = Store::open(dir, options());
            assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
            child.0.kill().unwrap();
            killed = true;
        }
    }
    assert!(killed, "the writing process ended by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that the kill test kills; does nothing useful alone"]
async fn write_until_killed() {
    let Ok(dir) = std::env::var(FOLDER) else {
        return;
    };
    let store = Store::open(Path::new(&dir), options()).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let store = store.clone();
            let mut writer = Writer::after(number, workload::step_in(&store, number));
            tokio::spawn(async move {
                // An error ends it, which the parent notices.
                while store.commit_all(writer.advance()).await.is_ok() {
                    // One write, so that a line is whole or not there.
                    let line = format!("\nacknowledged {number} {} end\n", writer.step);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                    std::io::stdout().flush().unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}
