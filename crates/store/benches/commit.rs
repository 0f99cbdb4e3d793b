//! What the store costs: writes by the number in flight, a start with 100,000 objects, memory an
//! object, delivery to 1,000 watches. `cargo bench -p gantry-store`; prints what it measured.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails ends")]
#![expect(clippy::print_stdout, reason = "its output is what it is run for")]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gantry_store::{Expect, Key, Op, Options, Store, Write};

const VALUE: usize = 2048;
const OBJECTS: usize = 100_000;
/// Processor time spent before each write in the rows "beside work": what a server and its client
/// on the same machine take for a create.
const WORK: Duration = Duration::from_micros(300);

#[tokio::main]
async fn main() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores; values of {VALUE} bytes; folder under {}",
        env!("CARGO_TARGET_TMPDIR")
    );
    for (work, in_flight, count) in [
        (Duration::ZERO, 1, 1_000),
        (Duration::ZERO, 64, 20_000),
        (Duration::ZERO, 512, 60_000),
        (WORK, 64, 20_000),
    ] {
        let dir = folder();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        report("on disk", &store, work, in_flight, count).await;
        store.close().await;
        let store = Store::in_memory(Options::default());
        report("in memory", &store, work, in_flight, count).await;
        store.close().await;
    }
    for in_flight in [64, 512] {
        // History is full all the time: each write also makes an old record go.
        let dir = folder();
        let options = Options {
            history_events: 5_000,
            ..Options::default()
        };
        let store = Store::open(dir.path(), options).unwrap();
        report("trimming", &store, Duration::ZERO, in_flight, 60_000).await;
        println!("  records left to remove: {}", store.stats().garbage);
        store.close().await;
    }
    start().await;
    fan_out().await;
}

async fn report(what: &str, store: &Store, work: Duration, in_flight: usize, count: usize) {
    // Updates of 5,000 objects, as status updates are.
    let before = processor();
    let (elapsed, mut latencies) = write(store, work, in_flight, count, 5_000).await;
    let processor = processor() - before;
    latencies.sort_unstable();
    let stats = store.stats();
    let beside = match work {
        Duration::ZERO => String::new(),
        work => format!(", beside {work:?} of work each"),
    };
    println!(
        "{what:9} {in_flight:4} in flight{beside}: {:7.0} writes/s, p50 {:?}, p99 {:?}, {:.1} writes a commit, {:?} of processor a write",
        count as f64 / elapsed.as_secs_f64(),
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100],
        stats.writes as f64 / stats.commits as f64,
        processor / count as u32,
    );
}

/// Uses the processor for so many rounds: not for so long, as time also passes while it is taken
/// away.
fn toil(rounds: u64) {
    let mut state = rounds;
    for round in 0..rounds {
        state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005) ^ round);
    }
}

/// How many rounds take so long when nothing comes between.
fn rounds(work: Duration) -> u64 {
    const SAMPLE: u64 = 10_000;
    if work.is_zero() {
        return 0;
    }
    let sample = (0..200).map(|_| {
        let before = Instant::now();
        toil(SAMPLE);
        before.elapsed()
    });
    let fastest = sample.min().unwrap();
    (work.as_secs_f64() / fastest.as_secs_f64() * SAMPLE as f64) as u64
}

/// Processor time of this process; zero where the system does not say.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_ascii_whitespace().skip(11).take(2);
    // A hundredth of a second each on every Linux there is.
    Duration::from_millis(10 * ticks.filter_map(|t| t.parse::<u64>().ok()).sum::<u64>())
}

/// Writes `count` times, to `names` objects in turn.
async fn write(
    store: &Store,
    work: Duration,
    in_flight: usize,
    count: usize,
    names: usize,
) -> (Duration, Vec<Duration>) {
    let rounds = rounds(work);
    let start = Instant::now();
    let writers: Vec<_> = (0..in_flight)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for number in (writer..count).step_by(in_flight) {
                    let key = Key::new("/pods", format!("namespace/pod-{:06}", number % names));
                    let value = Bytes::from(vec![b'x'; VALUE]);
                    toil(rounds);
                    let before = Instant::now();
                    let op = Op::Put {
                        value,
                        stamp: Some(100),
                    };
                    store
                        .commit(Write {
                            key,
                            expect: Expect::Any,
                            op,
                        })
                        .await
                        .unwrap();
                    latencies.push(before.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.unwrap());
    }
    (start.elapsed(), latencies)
}

async fn start() {
    let dir = folder();
    let before = Instant::now();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    println!("open, empty and new: {:?}", before.elapsed());
    let (filling, _) = write(&store, Duration::ZERO, 512, OBJECTS, OBJECTS).await;
    println!(
        "{OBJECTS} creates, 512 in flight: {:.0} writes/s",
        OBJECTS as f64 / filling.as_secs_f64()
    );
    // As a crash leaves it when all is folded: not closed.
    while store.stats().unfolded > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let crashed = folder();
    std::fs::copy(
        dir.path().join("store.redb"),
        crashed.path().join("store.redb"),
    )
    .unwrap();
    store.close().await;
    let size = std::fs::metadata(dir.path().join("store.redb"))
        .unwrap()
        .len();
    println!("file of {OBJECTS} objects: {:.0} MB", size as f64 / 1e6);
    open("after a crash", crashed.path(), true).await;
    open("after a close", dir.path(), false).await;
}

async fn open(what: &str, dir: &Path, first: bool) {
    let resident = resident_bytes();
    let before = Instant::now();
    let store = Store::open(dir, Options::default()).unwrap();
    let elapsed = before.elapsed();
    // Of the first store opened only: the second uses the memory that the first gave back.
    let an_object = resident_bytes().saturating_sub(resident) / OBJECTS as u64;
    let memory = if first {
        format!("; {an_object} bytes of memory an object")
    } else {
        String::new()
    };
    println!(
        "open {what}, {} objects: {elapsed:?}{memory}",
        store.count("/pods")
    );
    let before = Instant::now();
    let bytes: usize = store
        .snapshot("/pods")
        .iter()
        .map(|object| object.value.len())
        .sum();
    println!(
        "  walk over a snapshot: {:?} ({} MB)",
        before.elapsed(),
        bytes / 1_000_000
    );
    store.close().await;
}

async fn fan_out() {
    const WATCHES: usize = 1_000;
    const WRITES: usize = 10_000;
    let store = Store::in_memory(Options::default());
    let watches: Vec<_> = (0..WATCHES)
        .map(|_| {
            let mut watch = store.watch("/pods", 1).unwrap();
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < WRITES {
                    seen += watch.next().await.unwrap().events.len();
                }
            })
        })
        .collect();
    let start = Instant::now();
    let (writing, _) = write(&store, Duration::ZERO, 64, WRITES, 1_000).await;
    for watch in watches {
        watch.await.unwrap();
    }
    let elapsed = start.elapsed().as_secs_f64();
    println!(
        "{WATCHES} watches, in memory: {:.0} writes/s, {:.1} million deliveries/s",
        WRITES as f64 / writing.as_secs_f64(),
        (WATCHES * WRITES) as f64 / elapsed / 1e6,
    );
    store.close().await;
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// What the system says; 0 where it does not.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}
