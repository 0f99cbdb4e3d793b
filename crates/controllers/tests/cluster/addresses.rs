//! Addresses of Services, as `test/integration/servicecidr` of Kubernetes expects them: ranges come and go,
//! and Services take addresses of those that are ready.

use std::net::Ipv4Addr;

use super::*;

fn in_memory() -> Store {
    Store::in_memory(gantry_store::Options::default())
}

async fn rig(range: (Ipv4Addr, u8), store: Store) -> Rig {
    let config = Config {
        service_cidr: range,
        ..Config::default()
    };
    Rig::serving(config, store).await
}

struct Kinds {
    ranges: Api<DynamicObject>,
    services: Api<DynamicObject>,
    addresses: Api<DynamicObject>,
}

fn kinds(rig: &Rig) -> Kinds {
    let network = |kind, plural| rig.api("networking.k8s.io", "v1", kind, plural, "");
    Kinds {
        ranges: network("ServiceCIDR", "servicecidrs"),
        services: rig.api("", "v1", "Service", "services", "default"),
        addresses: network("IPAddress", "ipaddresses"),
    }
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

fn range(name: &str, cidr: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": name}, "spec": {"cidrs": [cidr]}})
}

fn address_of(service: &DynamicObject) -> String {
    service.data["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Waits until a range says this of itself: its condition and why, and that it is held.
async fn until_range(rig: &Rig, name: &str, status: &str, reason: &str) {
    let ranges = kinds(rig).ranges;
    rig.until(
        name,
        async || ranges.get_opt(name).await.unwrap(),
        |range| {
            range.as_ref().is_some_and(|range| {
                let ready = &range.data["status"]["conditions"][0];
                let held = range.metadata.finalizers.clone().unwrap_or_default();
                held == ["networking.k8s.io/service-cidr-finalizer"]
                    && ready["type"] == "Ready"
                    && ready["status"] == status
                    && ready["reason"] == reason
            })
        },
    )
    .await;
}

async fn until_gone(rig: &Rig, api: &Api<DynamicObject>, name: &str) {
    rig.until(
        name,
        async || api.get_opt(name).await.unwrap(),
        Option::is_none,
    )
    .await;
}

async fn fill(services: &Api<DynamicObject>, count: usize) {
    for n in 0..count {
        create(services, service(&format!("svc-{n}"))).await;
    }
    let full = services
        .create(&PostParams::default(), &object(service("one-more")))
        .await;
    let why = full.unwrap_err().to_string();
    assert!(why.contains("range is full"), "{why}");
}

/// `servicecidr_test.go`: TestServiceAllocNewServiceCIDR, TestServiceCIDRDeletion; `allocator_test.go`:
/// TestServiceAlloc.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_take_addresses_of_every_range_and_hold_the_ranges() {
    let rig = rig((Ipv4Addr::new(192, 168, 0, 0), 29), in_memory()).await;
    let Kinds {
        ranges,
        services,
        addresses,
    } = kinds(&rig);
    let params = DeleteParams::default();
    fill(&services, 5).await;
    services.delete("svc-1", &params).await.unwrap();
    create(&services, service("svc-1")).await;
    // One with the addresses of another may go.
    create(&ranges, range("cidr1", "192.168.0.0/29")).await;
    until_range(&rig, "cidr1", "True", "").await;
    ranges.delete("cidr1", &params).await.unwrap();
    create(&ranges, range("cidr2", "10.0.0.0/24")).await;
    until_range(&rig, "cidr2", "True", "").await;
    let new = address_of(&create(&services, service("new")).await);
    assert!(new.starts_with("10.0.0."), "{new}");
    assert!(addresses.get_opt(&new).await.unwrap().is_some());
    until_gone(&rig, &ranges, "cidr1").await;
    // What holds it lies in a larger one.
    create(&ranges, range("cidr3", "10.0.0.0/16")).await;
    until_range(&rig, "cidr3", "True", "").await;
    ranges.delete("cidr2", &params).await.unwrap();
    until_gone(&rig, &ranges, "cidr2").await;
    ranges.delete("cidr3", &params).await.unwrap();
    until_range(&rig, "cidr3", "False", "Terminating").await;
    services.delete("new", &params).await.unwrap();
    assert!(addresses.get_opt(&new).await.unwrap().is_none());
    until_gone(&rig, &ranges, "cidr3").await;
    rig.end().await;
}

/// `migration_test.go`: TestMigrateServiceCIDR, with one server after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_move_to_another_range() {
    let (before, after) = (
        (Ipv4Addr::new(192, 168, 0, 0), 29),
        (Ipv4Addr::new(10, 168, 0, 0), 24),
    );
    let store = in_memory();
    let params = DeleteParams::default();
    let first = rig(before, store.clone()).await;
    until_range(&first, "kubernetes", "True", "").await;
    let Kinds {
        ranges, services, ..
    } = kinds(&first);
    for name in ["svc-0", "svc-1"] {
        let given = address_of(&create(&services, service(name)).await);
        assert!(given.starts_with("192.168.0."), "{given}");
    }
    create(&ranges, range("migration-cidr", "10.168.0.0/24")).await;
    until_range(&first, "migration-cidr", "True", "").await;
    ranges.delete("kubernetes", &params).await.unwrap();
    until_range(&first, "kubernetes", "False", "Terminating").await;
    for name in ["svc-0", "svc-1"] {
        services.delete(name, &params).await.unwrap();
        let given = address_of(&create(&services, service(name)).await);
        assert!(given.starts_with("10.168.0."), "{given}");
    }
    first.end().await;

    let second = rig(after, store).await;
    let Kinds {
        ranges,
        services,
        addresses,
    } = kinds(&second);
    services.delete("kubernetes", &params).await.unwrap();
    let made = second
        .until(
            "the server's Service",
            async || services.get_opt("kubernetes").await.unwrap(),
            |service| {
                service
                    .as_ref()
                    .is_some_and(|s| address_of(s) == "10.168.0.1")
            },
        )
        .await;
    assert!(made.is_some());
    second
        .until(
            "the range",
            async || ranges.get_opt("kubernetes").await.unwrap(),
            |range| {
                range
                    .as_ref()
                    .is_some_and(|r| r.data["spec"]["cidrs"] == json!(["10.168.0.0/24"]))
            },
        )
        .await;
    until_range(&second, "kubernetes", "True", "").await;
    ranges.delete("migration-cidr", &params).await.unwrap();
    until_gone(&second, &ranges, "migration-cidr").await;
    let all = addresses.list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 3);
    second.end().await;
}
