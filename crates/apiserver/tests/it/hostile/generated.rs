//! Thousands of generated requests, one after the other.

use std::collections::BTreeMap;

use rand::{SeedableRng, rngs::StdRng};

use super::{
    Hostile,
    generate::{hostile, seeds},
    number, send, start,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_requests_are_answered_or_refused() {
    let server = start().await;
    let client = server.client();
    let seeds = seeds();
    let runs = number("GANTRY_HOSTILE_RUNS", 3000);
    let mut rng = StdRng::seed_from_u64(number("GANTRY_HOSTILE_SEED", 1));
    let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
    for _ in 0..runs {
        if let Some(code) = send(&client, &hostile(&mut rng, &seeds)).await {
            *codes.entry(code).or_default() += 1;
        }
    }
    println!("{runs} requests, by code: {codes:?}");
    // Generated requests that are all refused would test nothing behind the door.
    assert!(codes.get(&201).is_some_and(|n| *n > 0), "{codes:?}");
    let pods = "/api/v1/namespaces/default/pods".to_owned();
    let alive = Hostile {
        method: "GET",
        uri: pods,
        media: String::new(),
        accept: "application/json".to_owned(),
        body: vec![],
    };
    assert_eq!(send(&client, &alive).await, Some(200));
    server.shutdown().await;
}
