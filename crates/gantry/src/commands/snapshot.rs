//! `gantry snapshot`: a cluster's objects as one file: saved, looked into, restored.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use futures::AsyncReadExt;
use gantry_store::{BackupError, BackupInfo, BackupReader, OpenError, RestoreError, Store};
use http::Request;
use kube::Client;
use serde::Serialize;

use crate::cli::{Global, Output};
use crate::connect::{connect, failed};
use crate::failure::{Exit, Failure, Result};
use crate::output::{Format, print, print_value, println, table};

/// Of a server; see `gantry_apiserver`.
const URL: &str = gantry_apiserver::SNAPSHOT_PATH;

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    Save(Save),
    Restore(Restore),
    Inspect(Inspect),
}

/// Save all objects of an embedded cluster to a file.
///
/// Of a running cluster, named by --kubeconfig and --context, whose credentials must be those of a
/// member of system:masters; or, with --data-dir, of a stopped one. The file is of one moment,
/// checked before it gets its name, and readable by its owner alone: it holds every Secret.
/// Certificates and tokens of the server itself are not in it.
#[derive(Debug, Args)]
pub struct Save {
    /// The file to write
    pub file: PathBuf,
    /// Data folder of a stopped cluster: that of `gantry apiserver`, or one of the clusters in that
    /// of `gantry up`
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Replace the file where there is one
    #[arg(long)]
    pub force: bool,
}

/// Make a stopped cluster's data folder of a saved file.
///
/// The folder must be empty, but for a cluster's certificates and token: to take a cluster back,
/// move its `store` folder away first.
#[derive(Debug, Args)]
pub struct Restore {
    /// The file to read
    pub file: PathBuf,
    /// The data folder to make
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// How far resource versions skip ahead, so that clients that saw the cluster go on after the
    /// file was saved begin anew instead of missing what changes
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000)]
    pub bump_revision: u64,
}

/// Tell what a saved file holds, and whether it is whole.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The file to read
    pub file: PathBuf,
    #[command(flatten)]
    pub output: Output,
}

pub async fn run(args: Snapshot, global: &Global) -> Result<()> {
    match args {
        Snapshot::Save(args) => save(args, global).await,
        Snapshot::Restore(args) => blocking(move || restore(&args)).await,
        Snapshot::Inspect(args) => blocking(move || inspect(&args)).await,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

async fn save(args: Save, global: &Global) -> Result<()> {
    if !args.force && args.file.exists() {
        return Err(
            Failure::usage(format!("{} is there already", args.file.display()))
                .hint("name another file, or replace it with --force"),
        );
    }
    let staged = Staged::new(&args.file)?;
    match &args.data_dir {
        Some(folder) => save_stopped(folder.clone(), &staged).await?,
        None => save_running(&connect(global).await?.client, &staged).await?,
    }
    let (found, size) = blocking({
        let staged = staged.path.clone();
        move || read(&staged)
    })
    .await?;
    if let Some(damage) = found.damage {
        return Err(Failure::new(
            Exit::Failure,
            format!("the snapshot did not arrive whole: {damage}"),
        )
        .hint("save it again"));
    }
    staged.keep(&args.file)?;
    println(format!(
        "Saved {} objects at revision {} to {} ({size} bytes)",
        found.info.objects,
        found.info.revision,
        args.file.display()
    ))
}

async fn save_running(client: &Client, staged: &Staged) -> Result<()> {
    let what = "cannot take a snapshot of the running cluster";
    let request = Request::get(URL)
        .body(vec![])
        .map_err(anyhow::Error::from)?;
    let answer = client.request_stream(request).await.map_err(|e| match e {
        kube::Error::Api(status) if status.code == 404 => Failure::new(
            Exit::Failure,
            format!("{what}: it is not an embedded cluster of Gantry"),
        )
        .hint("of other clusters, etcdctl saves snapshots"),
        e => failed(what, e),
    })?;
    let mut answer = std::pin::pin!(answer);
    let mut file = staged.file.try_clone().map_err(|e| staged.unwritable(e))?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = answer.read(&mut buffer).await.map_err(|e| {
            Failure::new(Exit::Failure, format!("{what}: the connection broke: {e}"))
        })?;
        if length == 0 {
            return staged.synced();
        }
        // Pieces this small go to the page cache, not to the disk.
        file.write_all(&buffer[..length])
            .map_err(|e| staged.unwritable(e))?;
    }
}

async fn save_stopped(folder: PathBuf, staged: &Staged) -> Result<()> {
    let path = store_of(&folder)?;
    if !path.join("store.redb").exists() {
        return Err(Failure::usage(format!(
            "--data-dir: there is no cluster in {}",
            folder.display()
        ))
        .hint("name the folder of `gantry apiserver --data-dir`, or of one cluster of a fleet"));
    }
    let store = blocking(move || {
        Store::open(&path, gantry_store::Options::default()).map_err(|e| not_opened(&e))
    })
    .await?;
    let mut file = staged.file.try_clone().map_err(|e| staged.unwritable(e))?;
    let backup = store.backup();
    let written =
        blocking(move || Ok(backup.into_iter().try_for_each(|b| file.write_all(&b)))).await?;
    store.close().await;
    written.map_err(|e| staged.unwritable(e))?;
    staged.synced()
}

/// The store of a cluster's data folder.
fn store_of(folder: &Path) -> Result<PathBuf> {
    if folder.join("fleet.json").exists() {
        return Err(Failure::usage(format!(
            "--data-dir: {} holds a fleet, and a snapshot is of one cluster",
            folder.display()
        ))
        .hint(format!(
            "name one of its clusters: {}",
            folder.join(crate::fleet::HUB).display()
        )));
    }
    Ok(folder.join("store"))
}

fn not_opened(error: &OpenError) -> Failure {
    match error {
        OpenError::InUse { .. } => Failure::new(Exit::DataInUse, format!("--data-dir: {error}"))
            .hint("of a running cluster, name its kubeconfig instead: --kubeconfig, --context"),
        error => super::apiserver::not_opened(error),
    }
}

fn restore(args: &Restore) -> Result<()> {
    let store = store_of(&args.data_dir)?;
    empty(&args.data_dir)?;
    let (reader, _) = open(&args.file)?;
    let info = reader.info();
    // A restored store lies in a folder that is its owner's alone, as one made by a server does.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.data_dir)
        .map_err(|e| unwritable(&args.data_dir, e))?;
    Store::restore(&store, reader, args.bump_revision).map_err(|e| not_restored(&args.file, e))?;
    println(format!(
        "Restored {} objects of revision {} to {}, to go on at revision {}",
        info.objects,
        info.revision,
        args.data_dir.display(),
        info.revision.saturating_add(args.bump_revision)
    ))
}

/// Whether the folder holds nothing but what identifies a cluster to its clients.
fn empty(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(unwritable(folder, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| unwritable(folder, e))?;
        let name = entry.file_name();
        if name == "store" {
            let mut inside =
                fs::read_dir(entry.path()).map_err(|e| unwritable(&entry.path(), e))?;
            if inside.next().is_none() {
                continue;
            }
        } else if ["pki", "token", "store.restoring"]
            .iter()
            .any(|known| name == *known)
        {
            continue;
        }
        return Err(Failure::usage(format!(
            "--data-dir: {} is not empty: it holds {}",
            folder.display(),
            name.display()
        ))
        .hint("name another folder, or move what is in it away"));
    }
    Ok(())
}

fn not_restored(file: &Path, error: RestoreError) -> Failure {
    match error {
        RestoreError::Backup(error) => unreadable(file, error),
        RestoreError::Unwritable { path, source } => Failure::new(
            Exit::DataUnwritable,
            format!("--data-dir: cannot write to {}: {source}", path.display()),
        ),
        error => Failure::from(anyhow::Error::from(error).context("--data-dir")),
    }
}

/// What a file holds, as far as it could be read.
struct Found {
    info: BackupInfo,
    resources: BTreeMap<String, Count>,
    damage: Option<BackupError>,
}

#[derive(Debug, Default, Clone, Serialize)]
struct Count {
    objects: u64,
    bytes: u64,
}

fn open(path: &Path) -> Result<(BackupReader<BufReader<File>>, u64)> {
    let cannot = |e: std::io::Error| {
        Failure::new(
            Exit::Failure,
            format!("cannot read {}: {e}", path.display()),
        )
    };
    let file = File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    let reader = BackupReader::new(BufReader::with_capacity(256 << 10, file))
        .map_err(|e| unreadable(path, e))?;
    Ok((reader, size))
}

fn read(path: &Path) -> Result<(Found, u64)> {
    let (mut reader, size) = open(path)?;
    let mut found = Found {
        info: reader.info(),
        resources: BTreeMap::new(),
        damage: None,
    };
    loop {
        match reader.next_object() {
            Ok(Some(object)) => {
                let resource = resource(&object.key.bucket);
                let count = found.resources.entry(resource).or_default();
                count.objects += 1;
                count.bytes += object.value.len() as u64;
            }
            Ok(None) => return Ok((found, size)),
            Err(BackupError::Io(e)) => return Err(unreadable(path, BackupError::Io(e))),
            Err(damage) => {
                found.damage = Some(damage);
                return Ok((found, size));
            }
        }
    }
}

/// A bucket (`apps/deployments`, `/pods`) as kubectl names the resource.
fn resource(bucket: &str) -> String {
    match bucket.split_once('/') {
        Some(("", plural)) => plural.to_owned(),
        Some((group, plural)) => format!("{plural}.{group}"),
        None => bucket.to_owned(),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    format: u32,
    taken: String,
    revision: u64,
    objects: u64,
    size: u64,
    damage: Option<String>,
    resources: &'a BTreeMap<String, Count>,
}

fn inspect(args: &Inspect) -> Result<()> {
    let (found, size) = read(&args.file)?;
    let taken = i64::try_from(found.info.at)
        .ok()
        .and_then(|at| jiff::Timestamp::from_millisecond(at).ok())
        .map_or_else(|| "unknown".to_owned(), |at| at.to_string());
    let report = Report {
        file: &args.file,
        format: found.info.format,
        taken,
        revision: found.info.revision,
        objects: found.info.objects,
        size,
        damage: found.damage.as_ref().map(ToString::to_string),
        resources: &found.resources,
    };
    match args.output.output {
        Format::Table => print(&text(&report))?,
        format => print_value(&report, format)?,
    }
    match found.damage {
        None => Ok(()),
        Some(damage) => Err(unreadable(&args.file, damage)),
    }
}

fn text(report: &Report<'_>) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("Format", report.format.to_string()),
        ("Taken", report.taken.clone()),
        ("Revision", report.revision.to_string()),
        ("Objects", report.objects.to_string()),
        ("Size", format!("{} bytes", report.size)),
        (
            "Damage",
            report.damage.clone().unwrap_or_else(|| "none".to_owned()),
        ),
    ] {
        text.push_str(&format!("{name:<10}{value}\n"));
    }
    if report.resources.is_empty() {
        return text;
    }
    let rows = report
        .resources
        .iter()
        .map(|(name, count)| {
            vec![
                name.clone(),
                count.objects.to_string(),
                count.bytes.to_string(),
            ]
        })
        .collect();
    text + "\n" + &table(&["RESOURCE", "OBJECTS", "BYTES"], rows)
}

fn unreadable(path: &Path, error: BackupError) -> Failure {
    let exit = match &error {
        BackupError::Newer { .. } => Exit::DataNewer,
        BackupError::Damaged { .. } => Exit::DataDamaged,
        _ => Exit::Failure,
    };
    let hint = match &error {
        BackupError::Newer { .. } => "use the gantry that wrote it, or a newer one",
        BackupError::Damaged { .. } => "use another copy of it, or an earlier snapshot",
        _ => "name a file that `gantry snapshot save` wrote",
    };
    let error = anyhow::Error::from(error);
    Failure::new(exit, format!("{} {error:#}", path.display())).hint(hint)
}

fn unwritable(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(
        Exit::DataUnwritable,
        format!("cannot write to {}: {error}", path.display()),
    )
}

/// A file that has its name only when it is whole; removed where it does not come so far.
struct Staged {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Staged {
    fn new(target: &Path) -> Result<Staged> {
        let mut name = OsString::from(".");
        name.push(
            target
                .file_name()
                .ok_or_else(|| Failure::usage(format!("{} names no file", target.display())))?,
        );
        name.push(".part");
        let path = target.with_file_name(name);
        // One left by a crash may carry other permissions; a new one is made with ours.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(unwritable(&path, e)),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| unwritable(target, e))?;
        Ok(Staged {
            path,
            file,
            kept: false,
        })
    }

    fn unwritable(&self, error: std::io::Error) -> Failure {
        unwritable(&self.path, error)
    }

    fn synced(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| self.unwritable(e))
    }

    fn keep(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(|e| unwritable(target, e))?;
        self.kept = true;
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| unwritable(folder, e))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}
