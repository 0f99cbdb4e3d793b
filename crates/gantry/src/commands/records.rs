//! `gantry history`: what was done, by whom and why. And where the records are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use gantry_records::{Filter, Outcome, Page, Record, Records, Verb, Via, Writer, export};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::Value;

use crate::cli::Global;
use crate::connect::default_data_dir;
use crate::failure::{Exit, Failure, Result};
use crate::output::{Tone, color, paint, print, println, table};

/// File of the records in a data folder.
const FILE: &str = "records.db";
/// File in which they wait while the database is away.
const SPOOL: &str = "records.spool";

/// Where the hub writes its records.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Records")]
pub struct RecordArgs {
    /// Where records of every operation go: postgres://USER@HOST/DATABASE, the path of an SQLite file, or none
    /// [default: records.db in the data folder]
    #[arg(
        long,
        value_name = "URL",
        env = "GANTRY_RECORDS",
        hide_env_values = true
    )]
    pub records: Option<String>,
    /// Folder of the file in which records wait while the database is away [default: the data folder]
    #[arg(long, value_name = "FOLDER")]
    pub records_spool: Option<PathBuf>,
    /// What webhooks of tenants (notifications, gates) may reach beside public addresses: a host, *.DOMAIN, an address or a range; may
    /// be given several times
    #[arg(long = "notify-allow", value_name = "HOST")]
    pub notify_allow: Vec<gantry_hub::notify::guard::Allowed>,
}

/// The way into the records, and the task behind it.
pub struct Recording {
    pub writer: Writer,
    task: tokio::task::JoinHandle<()>,
}

impl Recording {
    /// Waits until what was sent is in the database, or in the spool where that is away.
    pub async fn end(self) {
        drop(self.writer);
        // A task that has failed has said so.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), self.task).await;
    }
}

impl RecordArgs {
    /// Where records go, of a fleet in this folder; `None` where none is kept.
    pub fn url(&self, folder: &Path) -> Option<String> {
        match self.records.as_deref() {
            Some("none") => None,
            Some(url) => Some(url.to_owned()),
            None => Some(folder.join(FILE).display().to_string()),
        }
    }

    /// Starts recording; `None` where none is wished.
    pub fn start(&self, folder: &Path) -> Result<Option<Recording>> {
        let failed = |e: gantry_records::Error| {
            Failure::new(Exit::DataUnwritable, format!("cannot keep records: {e}"))
                .hint("name another place with --records, or --records none for no records")
        };
        let Some(url) = self.url(folder) else {
            return Ok(None);
        };
        let spool = self.records_spool.as_deref().unwrap_or(folder);
        let own = self.records.is_none().then_some(folder);
        for needed in own.into_iter().chain([spool]) {
            make_private(needed)?;
        }
        let records = gantry_records::open(&url).map_err(failed)?;
        let options = gantry_records::writer::Options {
            spool: Some(spool.join(SPOOL)),
            ..gantry_records::writer::Options::default()
        };
        let (writer, task) = Writer::start(records, &options).map_err(failed)?;
        Ok(Some(Recording { writer, task }))
    }
}

fn make_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).map_err(|e| {
        Failure::new(
            Exit::DataUnwritable,
            format!("cannot make the folder {}: {e}", folder.display()),
        )
        .hint("name another with --records and --records-spool")
    })
}

/// Say what was done, by whom, why, and what came of it; newest first.
///
/// Reads the database of the records itself: it needs no right in the hub, but to read that. Of a fleet that `gantry
/// up` runs, that is the file beside its kubeconfig.
#[derive(Debug, Args)]
pub struct History {
    /// Only about this object, or the group of this name
    pub name: Option<String>,
    /// Only of this tenant (namespace); may be given several times
    #[arg(
        short = 'n',
        long = "tenant",
        visible_alias = "namespace",
        value_name = "NAMESPACE"
    )]
    pub tenants: Vec<String>,
    /// Only about this kind of object, such as Release
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only by this user
    #[arg(long, value_name = "USER")]
    pub who: Option<String>,
    /// Only by this program: cli, kubectl, console, hub, other; may be given several times
    #[arg(long, value_name = "PROGRAM")]
    pub via: Vec<Via>,
    /// Only this: release, scale, pause, approve, abort, rollback, stop … ; may be given several times
    #[arg(long, value_name = "VERB")]
    pub verb: Vec<Verb>,
    /// Only with this outcome: running, done, succeeded, rolled-back, aborted, failed; may be given several times
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Vec<Outcome>,
    /// Only since then: a time, such as 2026-12-24T00:00:00Z, or how long ago, such as 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Timestamp>,
    /// Only before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Timestamp>,
    /// Only with this text: in names, why, or what came of it
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Go on after an earlier page, by what it said at its end
    #[arg(long, value_name = "PAGE")]
    pub page: Option<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["limit", "page"])]
    pub all: bool,
    /// Output format; json is one record a line
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
    /// Where the records are: postgres://USER@HOST/DATABASE, or the path of an SQLite file
    /// [default: records.db beside the kubeconfig, else that of `gantry up`]
    #[arg(
        long,
        value_name = "URL",
        env = "GANTRY_RECORDS",
        hide_env_values = true
    )]
    pub records: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Table,
    Json,
    Csv,
}

/// A time, or how long ago.
fn moment(text: &str) -> std::result::Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let ago: Span = text.parse().map_err(|_| {
        format!(
            "{text:?} is neither a time such as 2026-12-24T00:00:00Z nor a span such as 2h or 7d"
        )
    })?;
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let at = now.checked_sub(ago.abs()).map_err(|e| e.to_string())?;
    Ok(at.timestamp())
}

pub async fn run(args: History, global: &Global) -> Result<()> {
    let records = open(args.records.as_deref(), global)?;
    let filter = Filter {
        tenants: (!args.tenants.is_empty()).then(|| args.tenants.clone()),
        kind: args.kind.clone(),
        name: args.name.clone(),
        who: args.who.clone(),
        via: args.via.clone(),
        verbs: args.verb.clone(),
        outcomes: args.outcome.clone(),
        since: args.since,
        until: args.until,
        text: args.text.clone(),
    };
    if args.output == Form::Csv {
        print(export::CSV_HEADER)?;
    }
    let mut left = if args.all { u32::MAX } else { args.limit };
    let mut page = Page {
        limit: 0,
        after: args.page.clone(),
    };
    let (mut rows, mut next) = (Vec::new(), None);
    while left > 0 {
        page.limit = left.min(Page::MOST);
        let found = records
            .query(&filter, &page)
            .await
            .map_err(|e| Failure::new(Exit::Failure, format!("cannot read the records: {e}")))?;
        left -= found.records.len() as u32;
        for record in &found.records {
            match args.output {
                Form::Table => rows.push(row(record)),
                Form::Json => print(&export::json_line(record).map_err(anyhow::Error::from)?)?,
                Form::Csv => print(&export::csv_line(record))?,
            }
        }
        next.clone_from(&found.next);
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    records.close().await;
    if args.output == Form::Table {
        if rows.is_empty() {
            return println("No records.");
        }
        print(&table(&HEADER, rows))?;
        if let Some(next) = next {
            let more = format!("There are more: --page {next}");
            println(paint(more, Tone::Dim, color()))?;
        }
    } else if let Some(next) = next {
        eprintln!("there are more: --page {next}");
    }
    Ok(())
}

/// Opens the records that are meant.
fn open(url: Option<&str>, global: &Global) -> Result<Arc<dyn Records>> {
    let failed = |e: gantry_records::Error| {
        Failure::new(Exit::Failure, format!("cannot open the records: {e}"))
    };
    if let Some(url) = url {
        // A file that is not there is no empty history.
        let path = url.strip_prefix("sqlite:").unwrap_or(url);
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        if !url.contains("://") && !path.exists() {
            return Err(Failure::new(
                Exit::Failure,
                format!("there are no records at {}", path.display()),
            ));
        }
        return gantry_records::open(url).map_err(failed);
    }
    let kubeconfig = global
        .kubeconfig
        .clone()
        .or_else(|| std::env::var_os("KUBECONFIG").map(PathBuf::from));
    let beside = kubeconfig.and_then(|file| Some(file.parent()?.join(FILE)));
    let places = beside
        .into_iter()
        .chain(["gantry", "gantry-hub"].map(|f| default_data_dir(f).join(FILE)));
    let Some(found) = places.into_iter().find(|p| p.exists()) else {
        return Err(Failure::new(Exit::Failure, "there are no records here")
            .hint("name the database that the hub was started with: --records postgres://…"));
    };
    gantry_records::open(&found.display().to_string()).map_err(failed)
}

const HEADER: [&str; 9] = [
    "AT", "WHO", "VIA", "VERB", "TENANT", "OBJECT", "OUTCOME", "TOOK", "WHAT",
];

fn row(record: &Record) -> Vec<String> {
    let object = &record.object;
    let took = record
        .duration_ms()
        .map(|ms| crate::output::age(ms / 1000))
        .unwrap_or_default();
    let or_dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    vec![
        record.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        or_dash(&record.who.user),
        record.who.via.to_string(),
        record.verb.to_string(),
        or_dash(&object.namespace),
        format!("{}/{}", object.kind.to_lowercase(), object.name),
        record.outcome.to_string(),
        or_dash(&took),
        what(record),
    ]
}

/// What has changed, what came of it and why, in one line.
fn what(record: &Record) -> String {
    let mut parts = Vec::new();
    let members = |v: &Option<Value>| {
        v.as_ref()
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let (before, after) = (members(&record.before), members(&record.after));
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys.iter().take(3) {
        let text = |v: Option<&Value>| match v {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        parts.push(match (text(before.get(*key)), text(after.get(*key))) {
            (Some(a), Some(b)) => format!("{key} {a} → {b}"),
            (None, Some(b)) => format!("{key} {b}"),
            (Some(a), None) => format!("{key} {a} →"),
            (None, None) => continue,
        });
    }
    let mut line = parts.join(", ");
    for more in [&record.message, &record.why] {
        if !more.is_empty() {
            if !line.is_empty() {
                line.push_str(" · ");
            }
            line.push_str(more);
        }
    }
    // A table has one line a record, and nothing that moves the cursor.
    let line: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.chars().count() > 120 {
        line.chars().take(119).chain(['…']).collect()
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use gantry_records::{Object, Who};
    use serde_json::json;

    use super::*;

    #[test]
    fn moments() {
        assert_eq!(
            moment("2026-12-24T00:00:00Z"),
            Ok("2026-12-24T00:00:00Z".parse().unwrap())
        );
        let ago = Timestamp::now().duration_since(moment("7d").unwrap());
        assert!((ago.as_secs() - 7 * 86_400).abs() < 60, "{ago}");
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn a_row_says_what_was_done_in_one_line() {
        let mut record = Record {
            id: "i".into(),
            at: "2026-11-26T10:00:00Z".parse().unwrap(),
            who: Who {
                user: "alice".into(),
                groups: vec![],
                via: Via::Cli,
            },
            verb: Verb::Scale,
            object: Object {
                kind: "Group".into(),
                namespace: "shop".into(),
                name: "cart-prod".into(),
                ..Object::default()
            },
            why: "sale\u{1b}[31m\nstarts".into(),
            before: Some(json!({"replicas": 3})),
            after: Some(json!({"replicas": 5, "image": "cart:2"})),
            outcome: Outcome::Done,
            message: String::new(),
            started: None,
            finished: None,
        };
        assert_eq!(
            row(&record),
            [
                "2026-11-26T10:00:00Z",
                "alice",
                "cli",
                "scale",
                "shop",
                "group/cart-prod",
                "done",
                "-",
                "image cart:2, replicas 3 → 5 · sale [31m starts"
            ]
        );
        record.why = "x".repeat(500);
        assert_eq!(what(&record).chars().count(), 120);
    }
}
