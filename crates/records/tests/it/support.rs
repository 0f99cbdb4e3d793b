//! Records to write, and stores to write them to.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use gantry_records::{
    Entry, Error, Filter, Found, Object, Outcome, Page, Record, Records, Seen, SeenChange, Verb,
    Via, Who, id,
};
use jiff::Timestamp;
use serde_json::json;

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// The `n`th of many records.
pub fn record(n: i64) -> Record {
    let name = format!("cart-{}", n % 3);
    let tenant = if n % 2 == 0 { "shop" } else { "bank" };
    let verb = [Verb::Scale, Verb::Release, Verb::Pause][(n % 3) as usize];
    Record {
        id: id::of(at(n), n, &[&name, verb.as_str()]),
        at: at(n),
        who: Who {
            user: if n % 5 == 0 { "bob" } else { "alice" }.into(),
            groups: vec!["staff".into()],
            via: if n % 5 == 0 { Via::Kubectl } else { Via::Cli },
        },
        verb,
        object: Object {
            kind: if verb == Verb::Scale {
                "Group"
            } else {
                "Release"
            }
            .into(),
            namespace: tenant.into(),
            group: if verb == Verb::Scale {
                String::new()
            } else {
                "cart".into()
            },
            uid: format!("uid-{n}"),
            name,
        },
        why: format!("because of 100%_{n}"),
        before: Some(json!({"replicas": n})),
        after: Some(json!({"replicas": n + 1})),
        outcome: Outcome::Done,
        message: String::new(),
        started: None,
        finished: None,
    }
}

pub fn entry(record: Record) -> Entry {
    Entry {
        seen: Some(SeenChange::Is(Seen {
            object: record.object.clone(),
            generation: 1,
            state: json!({"spec": record.after}),
        })),
        records: vec![record],
    }
}

/// Every record, newest first, so many a page.
pub async fn all(records: &dyn Records, filter: &Filter, limit: u32) -> Vec<Record> {
    let mut page = Page::first(limit);
    let mut all = vec![];
    loop {
        let found = records.query(filter, &page).await.unwrap();
        assert!(found.records.len() <= limit as usize);
        all.extend(found.records);
        match found.next {
            Some(next) => page.after = Some(next),
            None => return all,
        }
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain until {what}");
}

/// A store in front of another, that can be switched off, and that can lose the answer to a write.
#[derive(Debug)]
pub struct Switch {
    pub inner: Arc<dyn Records>,
    pub off: AtomicBool,
    pub lose_answers: AtomicBool,
    pub tries: AtomicUsize,
    /// Ids in the order in which they came.
    pub written: Mutex<Vec<String>>,
}

impl Switch {
    pub fn on(inner: Arc<dyn Records>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            off: AtomicBool::new(false),
            lose_answers: AtomicBool::new(false),
            tries: AtomicUsize::new(0),
            written: Mutex::default(),
        })
    }

    fn away(&self) -> Result<(), Error> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        if self.off.load(Ordering::SeqCst) {
            return Err(Error::Away {
                what: "write records",
                source: sqlx::Error::PoolTimedOut,
            });
        }
        Ok(())
    }
}

impl Records for Switch {
    fn write<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.away()?;
            self.inner.write(entries).await?;
            let ids = entries
                .iter()
                .flat_map(|e| &e.records)
                .map(|r| r.id.clone());
            self.written.lock().unwrap().extend(ids);
            if self.lose_answers.swap(false, Ordering::SeqCst) {
                return Err(Error::Silent {
                    what: "write records",
                });
            }
            Ok(())
        })
    }

    fn query<'a>(
        &'a self,
        filter: &'a Filter,
        page: &'a Page,
    ) -> BoxFuture<'a, Result<Found, Error>> {
        self.inner.query(filter, page)
    }

    fn seen(&self) -> BoxFuture<'_, Result<Vec<Seen>, Error>> {
        Box::pin(async move {
            self.away()?;
            self.inner.seen().await
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
