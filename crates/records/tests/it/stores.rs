//! What holds of every store.

use std::{os::unix::fs::PermissionsExt, sync::Arc};

use gantry_records::{Entry, Filter, Outcome, Page, Record, Records, SeenChange, Verb, Via, open};
use jiff::Timestamp;

use crate::{
    postgres,
    support::{all, at, entry, record},
};

/// The rules, one after the other, on an empty store.
pub async fn rules(store: Arc<dyn Records>) {
    let written: Vec<Record> = (0..40).map(record).collect();
    let entries: Vec<Entry> = written.iter().cloned().map(entry).collect();
    store.write(&entries[..25]).await.unwrap();
    // Written again, in part with others: each counts once.
    store.write(&entries[20..]).await.unwrap();
    store.write(&entries).await.unwrap();
    let newest_first: Vec<Record> = written.iter().rev().cloned().collect();
    for limit in [1, 7, 40, 1000] {
        assert_eq!(all(&*store, &Filter::default(), limit).await, newest_first);
    }

    // Filters, against the same asked of the list.
    let filter = Filter::default;
    type Check = fn(&Record) -> bool;
    let cases: Vec<(Filter, Check)> = vec![
        (
            Filter {
                tenants: Some(vec!["shop".into()]),
                ..filter()
            },
            |r| r.object.namespace == "shop",
        ),
        (
            Filter {
                tenants: Some(vec!["shop".into(), "bank".into()]),
                ..filter()
            },
            |_| true,
        ),
        (
            Filter {
                tenants: Some(vec![]),
                ..filter()
            },
            |_| false,
        ),
        (
            Filter {
                kind: Some("Group".into()),
                ..filter()
            },
            |r| r.object.kind == "Group",
        ),
        (
            Filter {
                name: Some("cart-1".into()),
                ..filter()
            },
            |r| r.object.name == "cart-1",
        ),
        (
            Filter {
                name: Some("cart".into()),
                ..filter()
            },
            |r| r.object.group == "cart",
        ),
        (
            Filter {
                who: Some("bob".into()),
                ..filter()
            },
            |r| r.who.user == "bob",
        ),
        (
            Filter {
                via: vec![Via::Cli, Via::Hub],
                ..filter()
            },
            |r| r.who.via == Via::Cli,
        ),
        (
            Filter {
                verbs: vec![Verb::Scale, Verb::Pause],
                ..filter()
            },
            |r| r.verb != Verb::Release,
        ),
        (
            Filter {
                outcomes: vec![Outcome::Failed],
                ..filter()
            },
            |_| false,
        ),
        (
            Filter {
                since: Some(at(10)),
                until: Some(at(12)),
                ..filter()
            },
            |r| r.at >= at(10) && r.at < at(12),
        ),
        // Signs that LIKE and SQL give a meaning to have none.
        (
            Filter {
                text: Some("OF 100%_3".into()),
                ..filter()
            },
            |r| r.why.contains("100%_3"),
        ),
        (
            Filter {
                text: Some("of 100_".into()),
                ..filter()
            },
            |_| false,
        ),
        (
            Filter {
                text: Some("'; DROP TABLE operations; --".into()),
                ..filter()
            },
            |_| false,
        ),
        (
            Filter {
                tenants: Some(vec!["bank".into()]),
                who: Some("alice".into()),
                verbs: vec![Verb::Release],
                since: Some(at(5)),
                ..filter()
            },
            |r| {
                r.object.namespace == "bank"
                    && r.who.user == "alice"
                    && r.verb == Verb::Release
                    && r.at >= at(5)
            },
        ),
    ];
    for (filter, holds) in cases {
        let want: Vec<Record> = newest_first.iter().filter(|r| holds(r)).cloned().collect();
        assert_eq!(all(&*store, &filter, 6).await, want, "{filter:?}");
    }
    let page = Page {
        limit: 5,
        after: Some("yesterday".into()),
    };
    let error = store.query(&filter(), &page).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the page \"yesterday\" was not given by an earlier one"
    );

    // A page stays where it is while records come in.
    let page = store.query(&filter(), &Page::first(10)).await.unwrap();
    store.write(&[entry(record(100))]).await.unwrap();
    let next = Page {
        limit: 10,
        after: page.next,
    };
    let next = store.query(&filter(), &next).await.unwrap();
    assert_eq!(next.records, newest_first[10..20]);

    // Of one moment: in the order in which they came.
    let moment = (200..220).map(|n| Record {
        at: at(200),
        ..record(n)
    });
    let moment: Vec<Record> = moment.collect();
    let entries: Vec<Entry> = moment.iter().cloned().map(entry).collect();
    store.write(&entries).await.unwrap();
    let filter_ = Filter {
        since: Some(at(200)),
        ..filter()
    };
    let mut found = all(&*store, &filter_, 3).await;
    found.reverse();
    assert_eq!(found, moment);

    // What runs is given its end once; what has ended keeps its end.
    let begun = Record {
        outcome: Outcome::Running,
        started: Some(at(300)),
        ..record(300)
    };
    let ended = Record {
        outcome: Outcome::Succeeded,
        message: "12 of 12".into(),
        finished: Some(at(390)),
        ..begun.clone()
    };
    let other = Record {
        outcome: Outcome::Failed,
        ..ended.clone()
    };
    for (write, want) in [
        (&begun, &begun),
        (&ended, &ended),
        (&begun, &ended),
        (&other, &ended),
    ] {
        store.write(&[entry(write.clone())]).await.unwrap();
        let filter = Filter {
            since: Some(at(300)),
            ..filter()
        };
        let found = all(&*store, &filter, 10).await;
        assert!(matches!(&found[..], [one] if one == want), "{found:?}");
    }
    assert_eq!(ended.duration_ms(), Some(90_000));

    // What was seen: the last of each, without those that are gone.
    let mut seen = store.seen().await.unwrap();
    seen.sort_by_key(|s| s.object.uid.clone());
    let count = seen.len();
    let mut changed = seen[0].clone();
    changed.generation = 7;
    let change = |seen| Entry {
        records: vec![],
        seen: Some(seen),
    };
    store
        .write(&[
            change(SeenChange::Is(changed.clone())),
            change(SeenChange::Gone(seen[1].object.uid.clone())),
            change(SeenChange::Gone("nobody".into())),
        ])
        .await
        .unwrap();
    let mut seen = store.seen().await.unwrap();
    seen.sort_by_key(|s| s.object.uid.clone());
    assert_eq!((seen.len(), &seen[0]), (count - 1, &changed));

    // Odd text, and all or nothing.
    let odd = Record {
        at: Timestamp::from_millisecond(1_800_000_000_123).unwrap(),
        why: "nul \0, quotes '\"\\, 发布 🚀".into(),
        ..record(400)
    };
    store.write(&[entry(odd.clone())]).await.unwrap();
    let found = store.query(&filter(), &Page::first(1)).await.unwrap();
    assert_eq!(found.records[0].why, odd.why.replace('\0', "\u{fffd}"));
    assert_eq!(found.records[0].at, odd.at);
    let search = Filter {
        text: Some("发布 🚀".into()),
        ..filter()
    };
    assert_eq!(all(&*store, &search, 10).await.len(), 1);
}

#[tokio::test]
async fn sqlite_keeps_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let url = format!("sqlite://{}", path.display());
    rules(open(&url).unwrap()).await;

    // For its owner alone, the log too; written ahead; there again after a restart.
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
    }
    assert!(folder.path().join("records.db-wal").exists());
    let again = open(&path.display().to_string()).unwrap();
    assert!(!again.seen().await.unwrap().is_empty());
    again.close().await;
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("records.db").display().to_string();
    let store = open(&url).unwrap();
    store.seen().await.unwrap();
    store.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&url);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'later', 1, x'00', 1)")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let error = open(&url).unwrap().seen().await.unwrap_err().to_string();
    assert!(
        error.starts_with("bring the tables up to date: "),
        "{error}"
    );
    assert!(error.contains("999"), "{error}");
}

#[tokio::test]
async fn postgres_keeps_the_rules() {
    let Some(server) = postgres::Server::start() else {
        return;
    };
    rules(open(&server.url).unwrap()).await;
    // Two hubs that start at once bring the tables up to date once.
    let fresh = server.database("fresh");
    let (one, two) = (open(&fresh).unwrap(), open(&fresh).unwrap());
    let (a, b) = tokio::join!(one.seen(), two.seen());
    assert_eq!((a.unwrap().len(), b.unwrap().len()), (0, 0));
}
