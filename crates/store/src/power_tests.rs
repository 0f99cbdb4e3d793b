//! What power losses and failing disks do to a store, on a disk made of memory.
//!
//! The disk keeps every write to every file, and what a sync of the file had made durable. A power
//! loss leaves the durable state, and of what was written since then any part: whole writes, some
//! of their sectors, none. A failed sync may have written any part too, and never tries that part
//! again: what is read afterwards is then not what is durable (see `medium`).

#[path = "../tests/workload/mod.rs"]
mod workload;

use std::collections::BTreeMap;
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

/// A segment of the journal by its number; `None`: the database.
type File = Option<u64>;
type Files = BTreeMap<File, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Write(File, u64, Vec<u8>),
    Length(File, u64),
    Sync(File),
    /// A segment is there, durably, with what it holds; with it, all `End`s before it are.
    Begin(u64, Vec<u8>),
    End(u64),
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
    content: Files,
    /// Every step since the disk was made.
    journal: Vec<Step>,
    full: Full,
    failed_syncs: u32,
    /// The last operation that failed was a sync.
    shaken: bool,
    /// What the last segment that ended held.
    ended: Vec<u8>,
    noted: Option<Revision>,
    /// One in so many operations fails; 0: none.
    fails: u32,
    random: ChaCha8Rng,
}

impl Platter {
    fn new(content: Files) -> Platter {
        Platter {
            content,
            journal: Vec::new(),
            full: Full::No,
            failed_syncs: 0,
            shaken: false,
            ended: Vec::new(),
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

fn apply(files: &mut Files, step: &Step) {
    match step {
        Step::Write(file, offset, data) => {
            // Of a segment whose end came first, nothing matters.
            let Some(content) = files.get_mut(file) else {
                return;
            };
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(data);
        }
        Step::Length(file, length) => {
            let content = files.get_mut(file);
            content.unwrap().resize(*length as usize, 0);
        }
        Step::Sync(_) => {}
        Step::Begin(id, content) => {
            files.insert(Some(*id), content.clone());
        }
        Step::End(id) => {
            files.remove(&Some(*id));
        }
    }
}

/// Which of these steps a power loss after them cannot undo.
fn durable(steps: &[Step]) -> Vec<bool> {
    let mut synced: BTreeMap<File, usize> = BTreeMap::new();
    let mut begun = 0;
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Sync(file) => {
                synced.insert(*file, at);
            }
            Step::Begin(..) => begun = at,
            _ => {}
        }
    }
    let steps = steps.iter().enumerate();
    let durable = steps.map(|(at, step)| match step {
        Step::Write(file, ..) | Step::Length(file, _) => {
            synced.get(file).is_some_and(|sync| *sync > at)
        }
        Step::Sync(_) | Step::Begin(..) => true,
        Step::End(_) => at < begun,
    });
    durable.collect()
}

/// The content after a power loss before step `moment`.
fn content_after_loss(
    initial: &Files,
    journal: &[Step],
    moment: usize,
    random: &mut ChaCha8Rng,
) -> Files {
    let mut content = initial.clone();
    let kept = [0, 50, 90, 100][random.random_range(0..4)];
    let before = &journal[..moment];
    for (step, durable) in before.iter().zip(durable(before)) {
        match step {
            Step::Write(file, offset, data) if !durable => {
                for (sector, data) in data.chunks(SECTOR).enumerate() {
                    if random.random_range(0..100) < kept {
                        let offset = offset + (sector * SECTOR) as u64;
                        apply(&mut content, &Step::Write(*file, offset, data.to_vec()));
                    }
                }
            }
            step => {
                if durable || random.random_range(0..100) < kept {
                    apply(&mut content, step);
                }
            }
        }
    }
    content
}

#[derive(Clone, Debug)]
struct SimulatedFile(Simulated, File);

#[derive(Clone, Debug)]
struct Simulated(Arc<Mutex<Platter>>);

impl Simulated {
    /// A disk with an empty store on it, and its content.
    fn formatted() -> (Simulated, Files) {
        let disk = Simulated::with(Files::from([(None, Vec::new())]));
        let file = SimulatedFile(disk.clone(), None);
        Disk::initialise(&Builder::new().create_with_backend(file).unwrap()).unwrap();
        let content = disk.0.lock().content.clone();
        (Simulated::with(content.clone()), content)
    }

    fn with(content: Files) -> Simulated {
        Simulated(Arc::new(Mutex::new(Platter::new(content))))
    }

    fn open(&self, options: Options) -> Store {
        Store::open_on(Arc::new(self.clone()), Path::new("simulated"), options).unwrap()
    }
}

impl Medium for Simulated {
    fn open(&self) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        self.0.lock().fail()?;
        Ok(Box::new(SimulatedFile(self.clone(), None)))
    }

    fn rewrite(&self) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.fail()?;
        let content = disk.content[&None].clone();
        let length = Step::Length(None, content.len() as u64);
        let copy = Step::Write(None, 0, content);
        disk.journal.extend([length, copy, Step::Sync(None)]);
        Ok(())
    }

    fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().content.keys().flatten().copied().collect())
    }

    fn segment(&self, id: u64) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(SimulatedFile(self.clone(), Some(id))))
    }

    fn begin_segment(
        &self,
        id: u64,
        head: &[u8],
        _: u64,
        usual: u64,
    ) -> io::Result<Box<dyn StorageBackend>> {
        let mut disk = self.0.lock();
        if disk.full != Full::No {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // A disk that has just failed is likely to go on so.
        let shaken = std::mem::take(&mut disk.shaken) && disk.random.random_bool(0.5);
        let failed = disk.fail().is_err() || shaken;
        if !failed || disk.random.random_bool(0.5) {
            // What it was used for before is still in it.
            let mut content = disk.ended.clone();
            content.resize(usual as usize, 0);
            content[..head.len()].copy_from_slice(head);
            let step = Step::Begin(id, content);
            apply(&mut disk.content, &step);
            disk.journal.push(step);
        }
        if failed {
            return Err(io::Error::other("the disk failed"));
        }
        drop(disk);
        self.segment(id)
    }

    fn end_segment(&self, id: u64) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.fail()?;
        disk.ended = disk.content[&Some(id)].clone();
        let step = Step::End(id);
        apply(&mut disk.content, &step);
        disk.journal.push(step);
        Ok(())
    }

    fn note(&self, acknowledged: Revision) {
        self.0.lock().noted = Some(acknowledged);
    }

    fn noted(&self) -> Option<Revision> {
        self.0.lock().noted
    }
}

impl StorageBackend for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().content[&self.1].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.0.lock();
        let found = disk.content[&self.1].get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Step::Length(self.1, length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.0.lock();
        let Err(error) = disk.fail() else {
            disk.journal.push(Step::Sync(self.1));
            return Ok(());
        };
        disk.failed_syncs += 1;
        disk.shaken = true;
        // What was not synced is given up: parts of it were written, the rest never will be.
        let steps = std::mem::take(&mut disk.journal);
        let durable = durable(&steps);
        for (step, durable) in steps.into_iter().zip(durable) {
            let of = match &step {
                Step::Write(file, ..) | Step::Length(file, _) => Some(*file),
                _ => None,
            };
            if durable || of != Some(self.1) || disk.random.random_bool(0.5) {
                disk.journal.push(step);
            }
        }
        disk.journal.push(Step::Sync(self.1));
        Err(error)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Step::Write(self.1, offset, data.to_vec()))
    }
}

impl SimulatedFile {
    fn change(&self, step: Step) -> io::Result<()> {
        let mut disk = self.0.0.lock();
        let length = disk.content[&self.1].len() as u64;
        let grows = matches!(step, Step::Length(_, new) if new > length);
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
        // So short that it is folded all the time.
        journal_bytes: 128 << 10,
        ..Options::default()
    }
}

/// Everything that was done to a disk by writers, and when they were told what.
struct Past {
    initial: Files,
    journal: Vec<Step>,
    /// Before which step of the disk a step of a writer was acknowledged.
    acknowledged: Vec<(usize, usize, u64)>,
    noted: Vec<(usize, Revision)>,
}

impl Past {
    async fn make() -> Past {
        let (disk, initial) = Simulated::formatted();
        let store = disk.open(options());
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::new(Mutex::new(Vec::new()));
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (store, disk, acknowledged) =
                    (store.clone(), disk.clone(), acknowledged.clone());
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
        Past {
            initial,
            journal,
            acknowledged,
            noted,
        }
    }

    /// What was acknowledged by then.
    fn steps(&self, moment: usize) -> Vec<u64> {
        let mut steps = vec![0; WRITERS];
        for (at, number, step) in &self.acknowledged {
            if *at <= moment {
                steps[*number] = steps[*number].max(*step);
            }
        }
        steps
    }

    /// The strictest note that may be left: of the last write acknowledged by then.
    fn note(&self, moment: usize) -> Option<Revision> {
        let noted = self.noted.iter().filter(|(at, _)| *at <= moment);
        noted.map(|(_, revision)| *revision).max()
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_power_loss() {
    let past = Past::make().await;
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut partly = 0;
    for _ in 0..120 {
        let moment = random.random_range(0..=past.journal.len());
        let content = content_after_loss(&past.initial, &past.journal, moment, &mut random);
        let left = Simulated::with(content.clone());
        left.0.lock().noted = past.note(moment);
        let store = left.open(options());
        let found = workload::check(&store, &past.steps(moment));
        partly += usize::from(found.iter().any(|step| *step > 0 && *step < 60));
        // It goes on, and the power is lost again.
        let mut steps = found;
        for (number, step) in steps.iter_mut().enumerate().take(2) {
            let mut writer = Writer::after(number, *step);
            store.commit_all(writer.advance()).await.unwrap();
            *step = writer.step;
        }
        let journal = left.0.lock().journal.clone();
        let again = content_after_loss(&content, &journal, journal.len(), &mut random);
        store.close().await;
        let store = Simulated::with(again).open(options());
        assert_eq!(workload::check(&store, &steps), steps);
        store.close().await;
    }
    assert!(
        partly > 30,
        "the losses did not fall into the work: {partly}"
    );
}

/// What a killed process had written and not synced is read again, and may be lost again.
#[tokio::test]
async fn what_is_served_after_a_kill_survives_power_loss() {
    let past = Past::make().await;
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut more = 0;
    for _ in 0..80 {
        let moment = random.random_range(0..=past.journal.len());
        let journal = past.journal[..moment].to_vec();
        let mut content = past.initial.clone();
        journal.iter().for_each(|step| apply(&mut content, step));
        let left = Simulated::with(content);
        left.0.lock().journal = journal;
        left.0.lock().noted = past.note(moment);
        let store = left.open(options());
        let journal = left.0.lock().journal.clone();
        let found = workload::check(&store, &past.steps(moment));
        more += usize::from(found != past.steps(moment));
        let lost = content_after_loss(&past.initial, &journal, journal.len(), &mut random);
        store.close().await;
        let store = Simulated::with(lost).open(options());
        let kept = workload::check(&store, &found);
        assert_eq!(kept, found);
        store.close().await;
    }
    assert!(
        more > 3,
        "nothing was found that was not acknowledged: {more}"
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
    let (mut refused, mut unknown, mut undone, mut losses) = (0, 0, 0, 0);
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
            let mut doubtful = false;
            loop {
                // Each step goes by the counter: it cannot be carried out twice.
                writes[0].expect = counter;
                match store.commit_all(writes.clone()).await {
                    Ok(written) => {
                        counter = Expect::At(written[0].revision);
                        break;
                    }
                    Err(CommitError::Io(_)) => refused += 1,
                    Err(CommitError::Unknown(_)) => {
                        unknown += 1;
                        doubtful = true;
                    }
                    Err(error) => panic!("seed {seed}: {error:?}"),
                }
                // What was refused is not there, whether the process or the power goes now.
                let (read, journal, failed) = {
                    let platter = disk.0.lock();
                    let (read, journal) = (platter.content.clone(), platter.journal.clone());
                    (read, journal, platter.failed_syncs)
                };
                if failed > failed_syncs && !doubtful {
                    let lost = content_after_loss(&initial, &journal, journal.len(), &mut random);
                    for left in [read, lost] {
                        let left = Simulated::with(left).open(options());
                        let before = writer.step - 1;
                        assert_eq!(workload::check(&left, &[before]), [before], "seed {seed}");
                        left.close().await;
                    }
                    undone += 1;
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
        refused > 50 && unknown > 5 && undone > 10 && losses > 20,
        "{refused} refused, {unknown} unknown, {undone} undone, {losses} losses"
    );
}
