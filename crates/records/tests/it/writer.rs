//! Nothing is lost while the store is away, nothing counts twice, and order is kept.

use std::sync::{Arc, atomic::Ordering};

use gantry_records::{Filter, Record, Records, Writer, open, writer::Options};

use crate::{
    postgres,
    support::{Switch, all, entry, record, until},
};

/// Ids of all records, oldest first.
async fn ids(store: &dyn Records) -> Vec<String> {
    let mut found = all(store, &Filter::default(), 1000).await;
    found.reverse();
    found.into_iter().map(|r| r.id).collect()
}

fn wanted(n: i64) -> Vec<String> {
    (0..n).map(|n| record(n).id).collect()
}

#[tokio::test]
async fn records_wait_in_order_while_the_store_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let inner = open(&folder.path().join("records.db").display().to_string()).unwrap();
    let switch = Switch::on(inner.clone());
    let options = Options {
        spool: Some(folder.path().join("records.spool")),
        ..Options::default()
    };
    let (writer, task) = Writer::start(switch.clone(), &options).unwrap();
    assert!(writer.baseline().await.await.unwrap().is_empty());
    for n in 0..10 {
        assert!(writer.send(entry(record(n))).await);
    }
    writer.flush().await;
    assert_eq!(writer.waiting(), 0, "straight into the store");
    assert_eq!(ids(&*inner).await, wanted(10));

    switch.off.store(true, Ordering::SeqCst);
    for n in 10..500 {
        assert!(writer.send(entry(record(n))).await);
    }
    writer.flush().await;
    assert!(writer.waiting() > 0 && writer.trouble().is_some());
    assert_eq!(ids(&*inner).await, wanted(10));
    let tries = switch.tries.load(Ordering::SeqCst);
    until("it is tried again", async || {
        switch.tries.load(Ordering::SeqCst) > tries + 1
    })
    .await;

    // It is back, and loses an answer: what it had taken comes again.
    switch.lose_answers.store(true, Ordering::SeqCst);
    switch.off.store(false, Ordering::SeqCst);
    until("everything has arrived", async || writer.waiting() == 0).await;
    for n in 500..510 {
        assert!(writer.send(entry(record(n))).await);
    }
    drop(writer);
    task.await.unwrap();
    let mut came = switch.written.lock().unwrap().clone();
    assert!(came.len() > 510, "an answer was lost: {}", came.len());
    let mut seen = std::collections::HashSet::new();
    came.retain(|id| seen.insert(id.clone()));
    assert_eq!(came, wanted(510), "in order");
    let again = open(&folder.path().join("records.db").display().to_string()).unwrap();
    assert_eq!(ids(&*again).await, wanted(510), "once each");
}

#[tokio::test]
async fn what_waits_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let inner = open(&folder.path().join("records.db").display().to_string()).unwrap();
    let switch = Switch::on(inner.clone());
    switch.off.store(true, Ordering::SeqCst);
    let options = Options {
        spool: Some(folder.path().join("records.spool")),
        ..Options::default()
    };
    let (writer, task) = Writer::start(switch.clone(), &options).unwrap();
    for n in 0..300 {
        assert!(writer.send(entry(record(n))).await);
    }
    writer.flush().await;
    // As at a kill: the task is gone between two steps, nothing is told to it.
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(!writer.send(entry(record(0))).await);

    let (writer, task) = Writer::start(switch.clone(), &options).unwrap();
    // New ones come before the store is back; what was seen before the restart is told without them.
    let baseline = writer.baseline().await;
    for n in 300..310 {
        assert!(writer.send(entry(record(n))).await);
    }
    writer.flush().await;
    switch.off.store(false, Ordering::SeqCst);
    assert_eq!(baseline.await.unwrap().len(), 300);
    assert_eq!(writer.baseline().await.await.unwrap().len(), 310);
    until("everything has arrived", async || writer.waiting() == 0).await;
    assert_eq!(ids(&*inner).await, wanted(310));
    drop(writer);
    task.await.unwrap();
}

#[tokio::test]
async fn a_full_spool_makes_senders_wait() {
    let folder = tempfile::tempdir().unwrap();
    let inner = open(&folder.path().join("records.db").display().to_string()).unwrap();
    let switch = Switch::on(inner.clone());
    switch.off.store(true, Ordering::SeqCst);
    let options = Options {
        spool: Some(folder.path().join("records.spool")),
        spool_bytes: 20_000,
    };
    let (writer, task) = Writer::start(switch.clone(), &options).unwrap();
    let sender = writer.clone();
    let sending = tokio::spawn(async move {
        for n in 0..2000 {
            assert!(sender.send(entry(record(n))).await);
        }
    });
    until("it is full", async || writer.waiting() >= 20_000).await;
    assert!(!sending.is_finished());
    let size = std::fs::metadata(folder.path().join("records.spool"))
        .unwrap()
        .len();
    // Bounded by one batch beyond.
    assert!(size < 400_000, "{size}");
    switch.off.store(false, Ordering::SeqCst);
    sending.await.unwrap();
    drop(writer);
    task.await.unwrap();
    let again = open(&folder.path().join("records.db").display().to_string()).unwrap();
    assert_eq!(ids(&*again).await, wanted(2000));
}

#[tokio::test]
async fn a_real_postgres_is_killed_and_comes_back() {
    let Some(mut server) = postgres::Server::start() else {
        return;
    };
    let store = open(&server.url).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        spool: Some(folder.path().join("records.spool")),
        ..Options::default()
    };
    let (writer, task) = Writer::start(store.clone(), &options).unwrap();
    assert!(writer.baseline().await.await.is_ok());
    let many: Vec<Record> = (0..600).map(record).collect();
    for (n, record) in many.iter().enumerate() {
        if n == 200 {
            server.kill();
        }
        assert!(writer.send(entry(record.clone())).await);
    }
    writer.flush().await;
    until("the trouble is told", async || writer.trouble().is_some()).await;
    assert!(writer.waiting() > 0);
    server.start_again();
    until("everything has arrived", async || writer.waiting() == 0).await;
    assert_eq!(writer.trouble(), None);
    assert_eq!(ids(&*Arc::clone(&store)).await, wanted(600));
    drop(writer);
    task.await.unwrap();
}
