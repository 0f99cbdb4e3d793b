//! What power losses and failing disks do to a store, on a disk made of memory.
//!
//! The disk keeps every write, and what a sync had made durable. A power loss leaves the durable
//! state, and of what was written since then any part: whole writes, some of their sectors, none.
//! A failed sync may have written any part too, and never tries that part again: what is read
//! afterwards is then not what is durable (see `medium`).

#[path = "../tests/workload/mod.rs"]
mod workload;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::{Builder, DatabaseError, StorageBackend};

use self::workload::Writer;
use crate::disk::Disk;
use crate::medium::Medium;
use crate::{CommitError, Expect, Op, Options, Revision, Store, Write};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const WRITERS: usize = 8;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Full {
    No,
    /// The file cannot grow: a full disk whose file systems write in place.
    Growth,
    /// Nothing can be written: one whose file system writes all things elsewhere.
    All,
}

#[derive(Debug)]
struct Platter {
    /// What can be read.
    content: Vec<u8>,
    /// Every step since the disk was made.
    journal: Vec<Step>,
    full: Full,
    failed_syncs: u32,
    noted: Option<Revision>,
    /// One in so many operations fails; 0: none.
    fails: u32,
    random: ChaCha8Rng,
}

impl Platter {
    fn new(content: Vec<u8>) -> Platter {
        Platter {
            content,
            journal: Vec::new(),
            full: Full::No,
            failed_syncs: 0,
            noted: None,
            fails: 0,
            random: ChaCha8Rng::seed_from_u64(3),
        }
    }

    fn fail(&mut self) -> io::Result<()> {
        if self.fails > 0 && self.random.random_ratio(1, self.fails) {
            return Err(io::Error::other("the disk failed"));
        }
        Ok(())
    }
}

fn apply(content: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(data);
        }
        Step::Length(length) => content.resize(*length as usize, 0),
        Step::Sync => {}
    }
}

/// What a power loss leaves of unsynced steps.
fn lose(content: &mut Vec<u8>, unsynced: &[Step], random: &mut ChaCha8Rng) {
    let kept = [0, 50, 90, 100][random.random_range(0..4)];
    for step in unsynced {
        match step {
            Step::Write(offset, data) => {
                for (sector, data) in data.chunks(SECTOR).enumerate() {
                    if random.random_range(0..100) < kept {
                        apply(
                            content,
                            &Step::Write(offset + (sector * SECTOR) as u64, data.to_vec()),
                        );
                    }
                }
            }
            other => {
                if random.random_range(0..100) < kept {
                    apply(content, other);
                }
            }
        }
    }
}

/// The content after a power loss before step `moment`.
fn content_after_loss(
    initial: &[u8],
    journal: &[Step],
    moment: usize,
    random: &mut ChaCha8Rng,
) -> Vec<u8> {
    let mut content = initial.to_vec();
    let before = &journal[..moment];
    let synced = before
        .iter()
        .rposition(|step| matches!(step, Step::Sync))
        .map_or(0, |at| at + 1);
    before[..synced]
        .iter()
        .for_each(|step| apply(&mut content, step));
    lose(&mut content, &before[synced..], random);
    content
}

#[derive(Clone, Debug)]
struct Simulated(Arc<Mutex<Platter>>);

impl Simulated {
    /// A disk with an empty store on it, and its content.
    fn formatted() -> (Simulated, Vec<u8>) {
        let disk = Simulated::with(Vec::new());
        Disk::initialise(&Builder::new().create_with_backend(disk.clone()).unwrap()).unwrap();
        let content = disk.0.lock().content.clone();
        (Simulated::with(content.clone()), content)
    }

    fn with(content: Vec<u8>) -> Simulated {
        Simulated(Arc::new(Mutex::new(Platter::new(content))))
    }

    fn open(&self, options: Options) -> Store {
        Store::open_on(Box::new(self.clone()), Path::new("simulated"), options).unwrap()
    }
}

impl Medium for Simulated {
    fn open(&mut self) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        self.0.lock().fail()?;
        Ok(Box::new(self.clone()))
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.fail()?;
        let copy = Step::Write(0, disk.content.clone());
        let length = Step::Length(disk.content.len() as u64);
        disk.journal.extend([length, copy, Step::Sync]);
        Ok(())
    }

    fn note(&mut self, acknowledged: Revision) {
        self.0.lock().noted = Some(acknowledged);
    }

    fn noted(&self) -> Option<Revision> {
        self.0.lock().noted
    }
}

impl StorageBackend for Simulated {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock();
        let found = disk
            .content
            .get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Step::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock();
        let Err(error) = disk.fail() else {
            disk.journal.push(Step::Sync);
            return Ok(());
        };
        disk.failed_syncs += 1;
        // What was not synced is given up: parts of it were written, the rest never will be.
        let synced = disk
            .journal
            .iter()
            .rposition(|step| matches!(step, Step::Sync))
            .map_or(0, |at| at + 1);
        let given_up = disk.journal.split_off(synced);
        for step in given_up {
            if disk.random.random_bool(0.5) {
                disk.journal.push(step);
            }
        }
        disk.journal.push(Step::Sync);
        Err(error)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Step::Write(offset, data.to_vec()))
    }
}

impl Simulated {
    fn change(&self, step: Step) -> io::Result<()> {
        let mut disk = self.0.lock();
        let grows = matches!(step, Step::Length(length) if length > disk.content.len() as u64);
        if disk.full == Full::All || disk.full == Full::Growth && grows {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.fail()?;
        apply(&mut disk.content, &step);
        disk.journal.push(step);
        Ok(())
    }
}

fn options() -> Options {
    Options {
        history_events: 30,
        ..Options::default()
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_power_loss() {
    let (disk, initial) = Simulated::formatted();
    let store = disk.open(options());
    // Which step of the disk an acknowledgement came before.
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::new(Mutex::new(Vec::new()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (store, disk, acknowledged) = (store.clone(), disk.clone(), acknowledged.clone());
            let noted = noted.clone();
            tokio::spawn(async move {
                let mut writer = Writer::new(number);
                for _ in 0..60 {
                    let written = store.commit_all(writer.advance()).await.unwrap();
                    let moment = disk.0.lock().journal.len();
                    acknowledged.lock().push((moment, number, writer.step));
                    let newest = written.iter().map(|object| object.revision).max().unwrap();
                    noted.lock().push((moment, newest));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    store.close().await;

    let journal = disk.0.lock().journal.clone();
    let acknowledged = acknowledged.lock().clone();
    let noted = noted.lock().clone();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut partly = 0;
    for _ in 0..200 {
        let moment = random.random_range(0..=journal.len());
        let content = content_after_loss(&initial, &journal, moment, &mut random);
        let left = Simulated::with(content);
        // The strictest note that may be left: of the last write acknowledged by then.
        left.0.lock().noted = noted
            .iter()
            .filter(|(at, _)| *at <= moment)
            .map(|(_, revision)| *revision)
            .max();
        let store = left.open(options());
        let mut steps = vec![0; WRITERS];
        for (at, number, step) in &acknowledged {
            if *at <= moment {
                steps[*number] = steps[*number].max(*step);
            }
        }
        let found = workload::check(&store, &steps);
        partly += usize::from(found.iter().any(|step| *step > 0 && *step < 60));
        store.close().await;
    }
    assert!(
        partly > 50,
        "the losses did not fall into the work: {partly}"
    );
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers() {
    for full in [Full::Growth, Full::All] {
        let (disk, _) = Simulated::formatted();
        let store = disk.open(options());
        let mut writer = Writer::new(0);
        for _ in 0..20 {
            store.commit_all(writer.advance()).await.unwrap();
        }
        let revision = store.revision();
        disk.0.lock().full = full;
        for _ in 0..3 {
            let mut writes = Writer::after(0, 20).advance();
            let large = Bytes::from(vec![b'x'; 16 << 20]);
            writes[0].op = Op::Put {
                value: large,
                stamp: None,
            };
            let refused = store.commit_all(writes).await;
            assert!(
                matches!(refused, Err(CommitError::Full(_))),
                "{full:?}: {refused:?}"
            );
            assert_eq!(store.revision(), revision);
            workload::check(&store, &[20]);
        }
        assert_eq!(store.stats().failures, 3);
        if full == Full::Growth {
            // There is still room in the file.
            store.commit_all(writer.advance()).await.unwrap();
        }
        disk.0.lock().full = Full::No;
        store.commit_all(writer.advance()).await.unwrap();
        store.close().await;
        assert_eq!(
            workload::check(&disk.open(options()), &[writer.step]),
            [writer.step]
        );
    }
}

/// Under random failures of all operations, what is acknowledged is there, what is refused is not,
/// and at the end memory and disk agree, also after a power loss.
#[tokio::test]
async fn memory_and_disk_agree_whatever_fails() {
    let (mut refused, mut unknown, mut losses) = (0, 0, 0);
    for seed in 0..12 {
        let (disk, initial) = Simulated::formatted();
        let store = disk.open(options());
        {
            let mut platter = disk.0.lock();
            platter.random = ChaCha8Rng::seed_from_u64(seed);
            platter.fails = [20, 60, 200][seed as usize % 3];
        }
        let mut writer = Writer::new(0);
        let mut counter = Expect::Absent;
        let mut failed_syncs = 0;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..80 {
            let mut writes: Vec<Write> = writer.advance();
            loop {
                // Each step goes by the counter: it cannot be carried out twice.
                writes[0].expect = counter;
                match store.commit_all(writes.clone()).await {
                    Ok(written) => {
                        counter = Expect::At(written[0].revision);
                        break;
                    }
                    Err(CommitError::Conflict {
                        current: Some(current),
                    }) => {
                        // A commit of unknown outcome turned out to be there.
                        assert_eq!(workload::step_in(&store, 0), writer.step, "seed {seed}");
                        counter = Expect::At(current.revision);
                        break;
                    }
                    Err(CommitError::Io(_)) => refused += 1,
                    Err(CommitError::Unknown(_)) => unknown += 1,
                    Err(error) => panic!("seed {seed}: {error:?}"),
                }
            }
            assert_eq!(
                workload::check(&store, &[writer.step]),
                [writer.step],
                "seed {seed}"
            );
            // An acknowledgement after a failed sync is worth the same.
            let (journal, failed) = {
                let platter = disk.0.lock();
                (platter.journal.clone(), platter.failed_syncs)
            };
            if failed > std::mem::replace(&mut failed_syncs, failed) {
                let lost = content_after_loss(&initial, &journal, journal.len(), &mut random);
                let left = Simulated::with(lost).open(options());
                assert_eq!(
                    workload::check(&left, &[writer.step]),
                    [writer.step],
                    "seed {seed}"
                );
                left.close().await;
                losses += 1;
            }
        }
        disk.0.lock().fails = 0;
        let revision = store.revision();
        let journal = disk.0.lock().journal.clone();
        let lost = content_after_loss(&initial, &journal, journal.len(), &mut random);
        store.close().await;
        for left in [disk, Simulated::with(lost)] {
            let store = left.open(options());
            assert_eq!(
                workload::check(&store, &[writer.step]),
                [writer.step],
                "seed {seed}"
            );
            assert_eq!(store.revision(), revision, "seed {seed}");
            store.close().await;
        }
    }
    assert!(
        refused > 50 && unknown > 5 && losses > 20,
        "{refused} refused, {unknown} unknown, {losses} losses"
    );
}
